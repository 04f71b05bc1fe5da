"""Jobs brought to where a test begins, by the store's own verbs, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from hypothesis import Phase

from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import CancelOutcome
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.finalize import Applied, Done, FinalizeOutcome, Settled
from forge_jobs.storage.types.job import Enqueued, ErrorEntry, JobFilter, JobRecord, JobRow
from forge_jobs.storage.types.process import Claimed
from forge_jobs.testing.factories import make_claim, make_crashed, make_dead, make_failed, make_request

STALE: Final = timedelta(seconds=30)
LONG_SILENCE: Final = timedelta(seconds=31)
UNSHRUNK: Final = (Phase.explicit, Phase.generate)
"""For random histories in a run that must end soon: one that fails is shown as it is, not made shorter for minutes."""
EVER: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))


async def add(storage: Storage, **fields: Any) -> JobId:
    """Enqueue one job that is expected to be taken in; its id."""
    outcome = await storage.jobs.enqueue(make_request(**fields))
    assert isinstance(outcome, Enqueued), outcome
    assert not outcome.repeated
    return outcome.id


async def add_many(storage: Storage, count: int, **fields: Any) -> list[JobId]:
    """Enqueue `count` equal jobs in one bulk; their ids in order."""
    outcomes = await storage.jobs.enqueue_bulk([make_request(**fields) for _ in range(count)])
    return [outcome.id for outcome in outcomes]


async def take(storage: Storage, limit: int = 1, **wish: Any) -> tuple[JobRecord, ...]:
    """Claim up to `limit` jobs."""
    return (await storage.jobs.claim(make_claim(limit, **wish))).jobs


async def take_one(storage: Storage, **wish: Any) -> JobRecord:
    """Claim the one job that is expected to be ready."""
    (job,) = await take(storage, 1, **wish)
    return job


async def settle(storage: Storage, job: JobRecord, outcome: FinalizeOutcome) -> Settled:
    """Finalize as the owner of the claim."""
    return await storage.jobs.finalize(job.id, job.fence, outcome)


async def run(storage: Storage, outcome: FinalizeOutcome, **wish: Any) -> JobRecord:
    """Claim the one ready job and settle it; the claim."""
    job = await take_one(storage, **wish)
    answer = await settle(storage, job, outcome)
    assert isinstance(answer, Applied), answer
    return job


async def read(storage: Storage, job_id: JobId) -> JobRow:
    """The row of a job that is expected to exist."""
    detail = await storage.jobs.get(job_id)
    assert detail is not None, f"job {job_id} is gone"
    return detail.row


async def read_all(storage: Storage) -> dict[JobId, JobRow]:
    """Every row of the store by id (up to a thousand)."""
    page = await storage.jobs.list_jobs(JobFilter(), limit=1_000)
    assert page.next_cursor is None
    return {row.id: row for row in page.items}


async def history(storage: Storage, job_id: JobId) -> tuple[ErrorEntry, ...]:
    """The error history of a job that is expected to exist."""
    detail = await storage.jobs.get(job_id)
    assert detail is not None, f"job {job_id} is gone"
    return detail.history


async def events_of(storage: Storage, job_id: JobId) -> list[str]:
    """The types of a job's events, oldest first, after a flush."""
    await storage.events.flush()
    return [event.type for event in await storage.events.of_job(job_id)]


async def all_events(storage: Storage) -> list[JobEvent]:
    """Every event, oldest first, after a flush."""
    await storage.events.flush()
    return await storage.events.timeline(*EVER, limit=1_000)


def claimed(jobs: Sequence[JobRecord]) -> list[Claimed]:
    """The identities of claims, as a heartbeat names them."""
    return [Claimed(job.id, job.fence) for job in jobs]


class Stand(Enum):
    """The places where a job can stand when something happens to it."""

    PENDING = "pending"
    RUNNING = "running"
    LAST_ATTEMPT = "running its last attempt"
    LAST_CRASH = "running, one crash from its end"
    CANCEL_REQUESTED = "running, asked to stop"
    FAILED = "failed"
    DONE = "done"
    DEAD = "dead"

    @property
    def is_running(self) -> bool:
        return self in (Stand.RUNNING, Stand.LAST_ATTEMPT, Stand.LAST_CRASH, Stand.CANCEL_REQUESTED)

    @property
    def is_waiting(self) -> bool:
        return self in (Stand.PENDING, Stand.FAILED)

    @property
    def is_finished(self) -> bool:
        return self in (Stand.DONE, Stand.DEAD)


async def bring(storage: Storage, clock: ManualClock, stand: Stand, **fields: Any) -> JobRow:
    """One job that stands where `stand` says. Waiting ones are due within a minute."""
    fields.setdefault("max_attempts", 1 if stand is Stand.LAST_ATTEMPT else 5)
    job_id = await add(storage, **fields)
    wish = {"kinds": (fields["kind"],)} if "kind" in fields else {}
    if stand is Stand.LAST_CRASH:
        await run(storage, make_crashed(), **wish)
        await run(storage, make_crashed(), **wish)
        await take_one(storage, alone=True, **wish)
    elif stand.is_running:
        await take_one(storage, **wish)
    match stand:
        case Stand.CANCEL_REQUESTED:
            clock.advance(1)
            assert await storage.jobs.cancel(job_id) is CancelOutcome.CANCEL_REQUESTED
        case Stand.FAILED:
            await run(storage, make_failed(delay=60), **wish)
        case Stand.DONE:
            await run(storage, Done(), **wish)
        case Stand.DEAD:
            await run(storage, make_dead(), **wish)
        case _:
            pass
    clock.advance(1)
    return await read(storage, job_id)
