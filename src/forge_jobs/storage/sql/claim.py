"""Taking ready jobs: the first n in claim order, whatever else the table holds.

A claim costs what it takes, not what waits: due jobs stand in an index per queue and kind in claim order, so
jobs of the future, of kinds nobody here serves, of paused queues and finished ones are never walked past. With
several kinds the heads of each are merged, stopping where a kind's next job comes after the n-th best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from forge_jobs.ids import JobId
from forge_jobs.storage.bucket import Bucket
from forge_jobs.storage.claim_order import Head, first_payable, heads_needed
from forge_jobs.storage.protocol import Claim, ClaimRequest
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.gates import Gates
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.sql.settle import Exchanged, Settlements, settle_jobs
from forge_jobs.storage.types.finalize import Finalize
from forge_jobs.storage.types.job import JobRecord
from forge_jobs.storage.types.rate_limit import Gate

PART: Final = "claim"
"""Its statements; a backend that claims in one statement of its own does without them."""
QUEUE_GATE = statement("queue_gate", PART)
ANY_DUE = statement("any_due", PART)
NEXT_BAND = statement("next_band", PART)
PROMOTE_BAND = statement("promote_band", PART)
PROMOTE_DUE = statement("promote_due", PART)
READY_KINDS = statement("ready_kinds", PART)
READY_HEADS = statement("ready_heads", PART)
ALONE_HEAD = statement("alone_head", PART)
ALONE_WAITING = statement("alone_waiting", PART)
TAKE_JOBS = statement("take_jobs", PART)
TAKEN_JOBS = statement("taken_jobs", PART)
NEXT_DUE_OF_QUEUE = statement("next_due_of_queue", PART)

_read_heads = msgspec.json.Decoder(list[tuple[int, int, JobId]]).decode
_read_records = msgspec.json.Decoder(list[JobRecord]).decode

PROMOTE_LIMIT: Final = 500
"""Most jobs beyond its need that one claim makes due, so that a flood of due jobs never makes it slow."""
FEW_KINDS: Final = 4
"""Up to here every served kind is looked up; beyond, only those that a skip scan finds to have ready jobs."""


def exchange(tx: Tx, settlements: Sequence[Finalize], claims: Sequence[ClaimRequest]) -> Exchanged:
    """Settle, then claim, statement by statement; see `JobStore.settle_and_claim`."""
    settled = settle_jobs(tx, settlements) if settlements else Settlements([])
    if not any(request.gates for request in claims):
        return settled, [claim_jobs(tx, request) for request in claims], tx.now_us
    gates = Gates(tx, claims)
    claimed = [_claim_paid(tx, request, gates) for request in claims]
    gates.close()
    return settled, claimed, tx.now_us


def _claim_paid(tx: Tx, request: ClaimRequest, gates: Gates) -> Claim:
    claim = claim_jobs(tx, gates.passing(request), gates, gates.holding(request))
    gates.pay(request, claim.jobs)
    return replace(claim, limited=gates.limited(request))


def claim_jobs(tx: Tx, request: ClaimRequest, gates: Gates | None = None, holding: tuple[Gate, ...] = ()) -> Claim:
    """Take up to `request.limit` jobs of the queue; see `JobStore.claim`. `holding`: see `Gates`."""
    if request.limit == 0 or not request.kinds:
        return Claim(queue=request.queue, jobs=(), now_us=tx.now_us)
    gate = tx.row(QUEUE_GATE, {"name": request.queue, "host": request.host_id})
    if gate is not None:
        return Claim(queue=request.queue, jobs=(), now_us=tx.now_us, next_due_us=gate[0])
    _promote(tx, request, {*request.kinds, *(gate.kind for gate in holding)})
    heads = _alone(tx, request) if request.alone else _heads(tx, request, gates, holding)
    more = len(heads) == request.limit
    return Claim(
        queue=request.queue,
        jobs=_take(tx, request, heads),
        now_us=tx.now_us,
        more=more,
        alone_waiting=not request.alone and _alone_waits(tx, request),
        next_due_us=None if more else _next_due(tx, request.queue),
    )


def _promote(tx: Tx, request: ClaimRequest, served: set[str]) -> None:
    """Make jobs due that fell due: the first `limit` of every kind and priority, so that the claim order is exact
    however many fall due at once, and some more by time, so that the backlog goes down."""
    if tx.row(ANY_DUE, {"queue": request.queue}) is None:
        return
    band: dict[str, Any] = {"queue": request.queue, "kind": "", "priority": 0, "limit": request.limit}
    while (found := tx.row(NEXT_BAND, band)) is not None:
        band["kind"], band["priority"] = found
        if band["kind"] in served:
            tx.change(PROMOTE_BAND, band)
    tx.change(PROMOTE_DUE, {"queue": request.queue, "limit": PROMOTE_LIMIT})


def _take(tx: Tx, request: ClaimRequest, heads: list[Head]) -> tuple[JobRecord, ...]:
    if not heads:
        return ()
    ids = [head[2] for head in heads]
    tx.change(TAKE_JOBS, {"slots": to_json(dict(zip(ids, request.slots, strict=False))), "host": request.host_id})
    taken = {job.id: job for job in _read_records(_json(tx, TAKEN_JOBS, {"ids": to_json(ids)}))}
    return tuple(taken[job_id] for job_id in ids)


def _json(tx: Tx, name: str, params: dict[str, Any]) -> str:
    row = tx.row(name, params)
    assert row is not None
    text: str = row[0]
    return text


def _heads_of(tx: Tx, queue: str, kind: str, limit: int) -> list[Head]:
    return _read_heads(_json(tx, READY_HEADS, {"queue": queue, "kind": kind, "limit": limit}))


def _next_due(tx: Tx, queue: str) -> int | None:
    row = tx.row(NEXT_DUE_OF_QUEUE, {"queue": queue})
    return None if row is None else row[0]


def _heads(tx: Tx, request: ClaimRequest, gates: Gates | None, holding: tuple[Gate, ...]) -> list[Head]:
    if gates is not None and request.gates:
        return _heads_paid(tx, request, gates.buckets, holding)
    best: list[Head] = []
    for kind in _kinds(tx, request):
        heads = _heads_of(tx, request.queue, kind, request.limit)
        best = heads if not best else sorted(best + heads)[: request.limit]
    return best


def _heads_paid(tx: Tx, request: ClaimRequest, buckets: Mapping[str, Bucket], holding: tuple[Gate, ...]) -> list[Head]:
    """The first jobs in claim order that can be paid for."""
    gate_of = {gate.kind: gate for gate in (*request.gates, *holding)}
    found: list[tuple[Head, str]] = []
    for kind in (*_kinds(tx, request), *(gate.kind for gate in holding)):
        gate = gate_of.get(kind)
        most = request.limit if gate is None else heads_needed(gate, buckets, request.limit)
        found += [(head, kind) for head in _heads_of(tx, request.queue, kind, most)]
    return [head for head, _ in first_payable(found, gate_of, buckets, request.limit)]


def _kinds(tx: Tx, request: ClaimRequest) -> Iterable[str]:
    served = [kind for kind in dict.fromkeys(request.kinds) if kind not in request.alone_kinds]
    if len(served) <= FEW_KINDS:
        return served
    wanted = set(served)
    return [row[0] for row in tx.rows(READY_KINDS, {"queue": request.queue}) if row[0] in wanted]


def _alone(tx: Tx, request: ClaimRequest) -> list[Head]:
    """The first job that must run alone."""
    heads: list[Head] = []
    for kind in request.kinds:
        row = tx.row(ALONE_HEAD, {"queue": request.queue, "kind": kind})
        if row is not None:
            heads.append((row[0], row[1], JobId(row[2])))
    for kind in _alone_kinds(request):
        heads += _heads_of(tx, request.queue, kind, 1)
    return sorted(heads)[:1]


def _alone_waits(tx: Tx, request: ClaimRequest) -> bool:
    if tx.row(ALONE_WAITING, {"queue": request.queue, "kinds": to_json(request.kinds)}) is not None:
        return True
    return any(_heads_of(tx, request.queue, kind, 1) for kind in _alone_kinds(request))


def _alone_kinds(request: ClaimRequest) -> set[str]:
    return set(request.kinds).intersection(request.alone_kinds)
