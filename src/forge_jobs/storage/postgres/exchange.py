"""Settling and claiming, in one statement where it can be.

What is done and what is wanted travel together to a function of the schema. Outcomes other than Done are decided in
Python, row by row, before it in the same transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

import msgspec

from forge_jobs import limits
from forge_jobs.clock import duration_us
from forge_jobs.ids import JobId
from forge_jobs.storage import lifecycle
from forge_jobs.storage.bucket import Bucket
from forge_jobs.storage.claim_order import first_payable, heads_needed, mixed_scopes
from forge_jobs.storage.postgres.connection import PostgresTx
from forge_jobs.storage.protocol import Claim, ClaimRequest
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Row, Tx
from forge_jobs.storage.sql.gates import Gates
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.sql.settle import Exchanged, Settlements, settle_jobs
from forge_jobs.storage.types.finalize import APPLIED_DONE, Done, Finalize, Lost, Repeated, Settled
from forge_jobs.storage.types.job import JobRecord
from forge_jobs.storage.types.rate_limit import Gate

EXCHANGE: Final = statement("exchange", "exchange")
GRACE_US: Final = duration_us(lifecycle.COOL_DOWN_GRACE)

PROMOTE_QUEUE: Final = statement("promote_queue", "exchange")
HEADS_AHEAD: Final = statement("heads_ahead")
BEHIND_ALL: Final = {"priority": limits.PRIORITY[1] + 1, "scheduled_at": 0, "id": ""}
"""Ahead of this place is every job."""

_encode = msgspec.json.Encoder().encode
_records = msgspec.json.Decoder(list[JobRecord]).decode
_heads = msgspec.json.Decoder(list[tuple[int, int, JobId]]).decode
_refused = msgspec.json.Decoder(dict[JobId, bool]).decode
_claim_order = attrgetter("priority", "scheduled_us", "id")


def exchange(tx: Tx, settlements: Sequence[Finalize], claims: Sequence[ClaimRequest]) -> Exchanged:
    """See `JobStore.settle_and_claim`."""
    assert isinstance(tx, PostgresTx)
    done = {item.job_id: item for item in settlements if type(item.outcome) is Done and item.job is not None}
    answers: dict[int, Settled] = {}
    settled = Settlements([])
    if len(done) < len(settlements):
        others = [item for item in settlements if done.get(item.job_id) is not item]
        others.sort(key=lambda item: item.job_id)  # beats lock rows in this order too
        settled = settle_jobs(tx, others)
        answers = {id(item): answer for item, answer in zip(others, settled.answers, strict=True)}
    asked = [request for request in claims if request.limit and request.kinds]
    text = _encode({job_id: item.fence for job_id, item in done.items()}).decode() if done else None
    if any(request.gates for request in asked):
        first, found = _exchange_paid(tx, text, asked)
    else:
        rows = _exchange(tx, text, [_asked(request) for request in asked])
        first = rows[0]
        found = {id(request): _claim(request, row) for request, row in zip(asked, rows[1:], strict=True)}
    _note_done(first, done, answers, settled)
    settled.answers = (
        [answers.get(id(item), APPLIED_DONE) for item in settlements] if answers else [APPLIED_DONE] * len(settlements)
    )
    now_us: int = first[0]
    return settled, [found.get(id(c)) or Claim(queue=c.queue, jobs=(), now_us=now_us) for c in claims], now_us


def _exchange(tx: PostgresTx, done: str | None, asked: Sequence[dict[str, Any]]) -> list[Row]:
    """The statement itself: a row of what was settled, then one for each claim."""
    text = _encode(asked).decode() if asked else None
    return tx.only(EXCHANGE, {"done": done, "asked": text, "grace": GRACE_US, "at": tx.injected_us})


def _exchange_paid(tx: PostgresTx, done: str | None, asked: Sequence[ClaimRequest]) -> tuple[Row, dict[int, Claim]]:
    """With claims that are paid for: the buckets are locked before and written after, and each claim goes by itself,
    since what it leaves is for the next."""
    gates = Gates(tx, asked)
    first: Row | None = None
    found: dict[int, Claim] = {}
    for request in asked:
        passing = gates.passing(request)
        paid = _paid(tx, passing, gates, gates.holding(request))
        first_row, *rows = _exchange(tx, done, [{**_asked(passing), "gates": paid}] if passing.kinds else [])
        claim = _claim(request, rows[0]) if rows else Claim(queue=request.queue, jobs=(), now_us=first_row[0])
        gates.pay(request, claim.jobs)
        found[id(request)] = replace(claim, limited=gates.limited(request))
        first, done = first or first_row, None
    gates.close()
    assert first is not None
    return first, found


def _note_done(first: Row, done: dict[JobId, Finalize], answers: dict[int, Settled], settled: Settlements) -> None:
    """What the statement settled. Where it could not, an earlier try of ours did, or the job is somebody else's."""
    refused = _refused(first[1]) if first[1] else {}
    answers.update({id(done[job_id]): Repeated() if fits else Lost() for job_id, fits in refused.items()})
    settled.done += [item.job for job_id, item in done.items() if job_id not in refused and item.job is not None]


def _asked(request: ClaimRequest) -> dict[str, Any]:
    return {
        "queue": request.queue,
        "kinds": tuple(dict.fromkeys(request.kinds)),
        "slots": request.slots,
        "host": request.host_id,
        "alone": request.alone,
        "alone_kinds": tuple(set(request.kinds).intersection(request.alone_kinds)),
    }


def _paid(tx: PostgresTx, request: ClaimRequest, gates: Gates, holding: Sequence[Gate]) -> list[dict[str, Any]] | None:
    """What the kinds of a claim cost, and what their scopes hold.

    The function takes of each scope what the first jobs can be paid for. Where kinds of one scope cost differently it
    is decided here, as everywhere, and told as a scope for each kind, with a token for every job that may be taken.
    """
    mixed = frozenset[str]() if request.alone else mixed_scopes((*request.gates, *holding))
    room = _room_of_kinds(tx, request, gates.buckets, holding, mixed) if mixed else Counter[str]()
    paid = [
        {"paid_kind": gate.kind, "scope": f"/{gate.kind}", "cost": 1.0, "tokens": float(room[gate.kind])}
        if gate.scope in mixed
        else {
            "paid_kind": gate.kind,
            "scope": gate.scope,
            "cost": gate.cost,
            "tokens": gates.buckets[gate.scope].available,
        }
        for gate in request.gates
    ]
    return paid or None


def _room_of_kinds(
    tx: PostgresTx,
    request: ClaimRequest,
    buckets: Mapping[str, Bucket],
    holding: Sequence[Gate],
    mixed: frozenset[str],
) -> Counter[str]:
    """How many jobs of each kind of these scopes can be paid for in claim order, at most as many as there are slots."""
    gate_of = {gate.kind: gate for gate in (*request.gates, *holding) if gate.scope in mixed}
    kinds = [kind for kind in gate_of if kind not in request.alone_kinds]
    tx.rows(PROMOTE_QUEUE, {"queue": request.queue, "kinds": to_json(kinds), "limit": request.limit})
    most = max((heads_needed(gate_of[kind], buckets, request.limit) for kind in kinds), default=0)
    rows = tx.rows(HEADS_AHEAD, {"queue": request.queue, "kinds": to_json(kinds), "limit": most, **BEHIND_ALL})
    found = [(head, kind) for kind, text in rows if text for head in _heads(text)]
    limit = request.limit * len(mixed)  # of each scope as many as there are slots; the claim takes the first of all
    return Counter(kind for _, kind in first_payable(found, gate_of, buckets, limit))


def _claim(request: ClaimRequest, row: Row) -> Claim:
    now_us, _, jobs, more, alone_waiting, next_due_us = row
    records: list[JobRecord] = _records(jobs)
    records.sort(key=_claim_order)
    return Claim(
        queue=request.queue,
        jobs=tuple(records),
        now_us=now_us,
        more=more,
        alone_waiting=alone_waiting,
        next_due_us=next_due_us,
    )
