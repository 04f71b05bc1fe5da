"""A transaction that a handler writes in: its own rows, its follow-ups and its job's end, together or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from forge_jobs import tracing
from forge_jobs.ids import JobId
from forge_jobs.storage.error import LostOwnership
from forge_jobs.storage.request import check_requests
from forge_jobs.storage.sql.driver import Row, Tx, Wake
from forge_jobs.storage.sql.enqueue import KnownQueues, insert_jobs
from forge_jobs.storage.sql.events import SqlEvents
from forge_jobs.storage.sql.settle import settle_jobs
from forge_jobs.storage.sql.write import lock
from forge_jobs.storage.types.event import EventType, JobEvent
from forge_jobs.storage.types.finalize import Applied, Done, Finalize
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest, JobStatus, NewJob

T = TypeVar("T")


class Session(Protocol):
    """A backend's connection of its own with a write transaction open on it. Used from one thread."""

    @property
    def connection(self) -> Any:
        """The driver's."""

    @property
    def tx(self) -> Tx: ...

    def execute(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None) -> list[Row]:
        """A statement of the user's, in the driver's own style of parameters; its rows, if it gives any."""

    def commit(self) -> None:
        """Raises `OutcomeUnknown` if the answer was lost."""

    def close(self) -> None:
        """Roll back what is not committed, and let the connection go."""


class SqlTransaction:
    """Implements `JobTransaction`: a session on a thread of its own."""

    def __init__(self, begin: Callable[[], Session], limit_s: float, payload_max: int, events: SqlEvents, wake: Wake):
        self.limit_s = limit_s
        self._begin = begin
        self._payload_max = payload_max
        self._events = events
        self._wake = wake
        self._added: list[NewJob] = []
        self._told: list[JobEvent] = []
        self._session: Session | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forge-transaction")

    @property
    def connection(self) -> Any:
        assert self._session is not None
        return self._session.connection

    async def begin(self) -> None:
        try:
            self._session = await self._run(self._begin)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def execute(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> list[Row]:
        return await self._run(lambda: self._open.execute(sql, params))

    async def enqueue_bulk(self, requests: Sequence[EnqueueRequest], *, parent_id: JobId) -> list[EnqueueOutcome]:
        with tracing.enqueuing(requests) as traced:
            return await self._enqueue_bulk(traced, parent_id)

    async def _enqueue_bulk(self, requests: Sequence[EnqueueRequest], parent_id: JobId) -> list[EnqueueOutcome]:
        jobs = check_requests(requests, parent_id=parent_id, payload_max=self._payload_max)
        if not jobs:
            return []
        batch = await self._run(lambda: insert_jobs(self._open.tx, jobs, KnownQueues(), atomic=True))
        self._added += batch.added
        self._told += batch.events
        return batch.answers  # type: ignore[return-value]  # atomic: a refusal was raised

    async def commit(self, job_id: JobId, fence: int, *, finish: bool) -> None:
        now_us = await self._run(lambda: self._commit(job_id, fence, finish))
        self._events.push(self._told)
        if self._added:
            self._events.push_jobs(EventType.ENQUEUED, now_us, self._added)
            self._wake.due({job.queue for job in self._added})

    async def close(self) -> None:
        """Roll back what is not committed. Waits for a statement that is under way."""
        try:
            if self._session is not None:
                await self._run(self._session.close)
        finally:
            self._thread.shutdown(wait=False)

    def _commit(self, job_id: JobId, fence: int, finish: bool) -> int:
        """The fence is checked last, under the lock of the row, so that nobody can take the job before the commit."""
        session = self._open
        job = lock(session.tx, job_id)
        if job is None or job.state.fence != fence or job.state.status is not JobStatus.IN_PROGRESS:
            raise LostOwnership(f"job {job_id} has another owner or has ended; the transaction was rolled back")
        if finish:
            settled = settle_jobs(session.tx, [Finalize(job_id, fence, Done())])
            assert isinstance(settled.answers[0], Applied)
            self._told += settled.events
        now_us = session.tx.now_us
        session.commit()
        return now_us

    @property
    def _open(self) -> Session:
        assert self._session is not None
        return self._session

    async def _run(self, act: Callable[[], T]) -> T:
        """On the thread; a cancelled caller still waits for what runs there: nothing happens behind its back."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, act)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.gather(running, return_exceptions=True)
            raise
