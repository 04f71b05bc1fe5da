"""Settling and claiming, in one statement where it can be.

What is done and what is wanted travel together to a function of the schema. Outcomes other than Done are decided in
Python, row by row, before it in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

import msgspec

from forge_jobs.clock import duration_us
from forge_jobs.ids import JobId
from forge_jobs.storage import lifecycle
from forge_jobs.storage.postgres.connection import PostgresTx
from forge_jobs.storage.protocol import Claim, ClaimRequest
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Row, Tx
from forge_jobs.storage.sql.gates import Gates
from forge_jobs.storage.sql.settle import Exchanged, Settlements, settle_jobs
from forge_jobs.storage.types.finalize import APPLIED_DONE, Done, Finalize, Lost, Repeated, Settled
from forge_jobs.storage.types.job import JobRecord

EXCHANGE: Final = statement("exchange", "exchange")
GRACE_US: Final = duration_us(lifecycle.COOL_DOWN_GRACE)

_encode = msgspec.json.Encoder().encode
_records = msgspec.json.Decoder(list[JobRecord]).decode
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
        first_row, *rows = _exchange(tx, done, [_asked_paid(passing, gates)] if passing.kinds else [])
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


def _asked_paid(request: ClaimRequest, gates: Gates) -> dict[str, Any]:
    paid = [
        {"paid_kind": gate.kind, "scope": gate.scope, "cost": gate.cost, "tokens": gates.tokens(gate.scope)}
        for gate in request.gates
    ]
    return {**_asked(request), "gates": paid or None}


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
