"""Where a job that is due stands in line, by the order in which claims take jobs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from forge_jobs.ids import JobId
from forge_jobs.storage.bucket import Bucket
from forge_jobs.storage.claim_order import Head, affords, first_payable, holding
from forge_jobs.storage.explain.facts import JobFacts, Place, QueueFacts, Worker
from forge_jobs.storage.explain.job import able, runs_alone
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.types.rate_limit import Gate

COUNT_AHEAD = statement("count_ahead")
HEADS_AHEAD = statement("heads_ahead")
ALONE_AHEAD = statement("alone_ahead")
DUE_AHEAD = statement("due_ahead")

COUNT_LIMIT: Final = 2_000
"""About so many jobs ahead are counted, of each kind its part; more makes no difference to whoever waits."""
LEAST_COUNT: Final = 20
"""The part of each of many kinds."""
ROOM_LIMIT: Final = 500
"""Idle slots beyond this are not reckoned with."""

Group: TypeAlias = "tuple[tuple[str, ...], tuple[Gate, ...], tuple[str, ...]]"
"""What claims of a process ask for: kinds, gates and kinds that run alone."""

_read_heads = msgspec.json.Decoder(list[tuple[int, int, JobId]]).decode


def place_of(tx: Tx, job: JobFacts, queue: QueueFacts, paying: Sequence[Worker]) -> Place:
    """Where the job stands for those workers that may claim it: the best place that any of them gives it."""
    groups: defaultdict[Group, list[Worker]] = defaultdict(list)
    for worker in paying:
        info = worker.info
        groups[info.kinds, info.gates, info.alone_kinds].append(worker)
    places = [_place_in(tx, job, queue, members) for members in groups.values()]
    return Place(
        ahead=min(place.ahead for place in places),
        or_more=all(place.or_more for place in places),
        first=any(place.first for place in places),
    )


def _place_in(tx: Tx, job: JobFacts, queue: QueueFacts, members: Sequence[Worker]) -> Place:
    """Of workers that ask for the same."""
    one = members[0]
    gates = {gate.kind: gate for gate in one.info.gates}
    held_by = {gate.kind for gate in holding(one.info.gates, queue.buckets)}
    kinds = [
        kind for kind in one.info.kinds if kind not in gates or kind in held_by or affords(gates[kind], queue.buckets)
    ]
    alone = set(kinds).intersection(one.info.alone_kinds)
    payable = [kind for kind in kinds if kind not in held_by]
    wish = {"queue": job.queue, "priority": job.priority, "scheduled_at": job.scheduled_us, "id": job.id}
    part = max(COUNT_LIMIT // max(len(kinds), 1), LEAST_COUNT)
    due = tx.rows(DUE_AHEAD, {**wish, "kinds": to_json(kinds), "limit": COUNT_LIMIT})
    room = max((min(worker.idle, ROOM_LIMIT) for worker in able(job, members)), default=0)
    if runs_alone(job, one):
        lonely = len(tx.rows(ALONE_AHEAD, {**wish, "kinds": to_json(payable), "limit": COUNT_LIMIT}))
        ready, most = tx.rows(COUNT_AHEAD, {**wish, "kinds": to_json(sorted(alone - held_by)), "limit": part})[0]
        ahead = lonely + ready + sum((bool(row[1]) or row[0] in alone) and row[0] not in held_by for row in due)
        return Place(ahead=ahead, or_more=most == part, first=room > 0 and ahead == 0)
    usual = [kind for kind in kinds if kind not in alone]
    due = [row for row in due if not row[1] and row[0] not in alone]
    ready, most = tx.rows(COUNT_AHEAD, {**wish, "kinds": to_json(usual), "limit": part})[0]
    ahead = len(due) + ready
    first = room > 0 and (ahead == 0 or _is_taken(tx, job, wish, usual, due, gates, queue.buckets, room))
    return Place(ahead=ahead, or_more=most == part, first=first)


def _is_taken(
    tx: Tx,
    job: JobFacts,
    wish: Mapping[str, Any],
    kinds: Sequence[str],
    due: Sequence[tuple[Any, ...]],
    gates: Mapping[str, Gate],
    buckets: Mapping[str, Bucket],
    room: int,
) -> bool:
    """Whether a claim for so many slots comes as far as this job."""
    found: list[tuple[Head, str]] = [((row[2], row[3], JobId(row[4])), row[0]) for row in due]
    for kind, text in tx.rows(HEADS_AHEAD, {**wish, "kinds": to_json(kinds), "limit": room}):
        found += [(head, kind) for head in (_read_heads(text) if text else ())]
    mine: Head = (job.priority, job.scheduled_us, job.id)
    return (mine, job.kind) in first_payable([*found, (mine, job.kind)], gates, buckets, room)
