"""What a handler is given besides its payload."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from forge_jobs import limits
from forge_jobs.clock import from_us
from forge_jobs.ids import JobId, new_id, new_ids
from forge_jobs.runtime.job_log import KEPT_FROM, current_run, keep_unseen
from forge_jobs.runtime.rate_limit import RateLimiter, StoreRateLimiter
from forge_jobs.runtime.routing import Router
from forge_jobs.runtime.transaction import HandlerTransaction
from forge_jobs.storage.error import InvalidInput, is_transient_conflict
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest
from forge_jobs.text import clean

if TYPE_CHECKING:
    from forge_jobs.runtime.cancel import CancelToken
    from forge_jobs.runtime.running import Run

log = logging.getLogger("forge_jobs.context")
job_log = logging.getLogger("forge_jobs.job")

RETRY_DELAYS_S: Final = (0.1, 0.3, 1.0)
"""Waits between the tries of a write that met a transient conflict."""
T = TypeVar("T")


class JobCtx:
    """The world of one run of one job.

    `storage.jobs` is there for follow-ups, the rest of `storage` for reading. `(job_id, fence)` identifies this run to
    downstream systems: a later run has a higher fence. `attempt` is a budget and can repeat.
    """

    __slots__ = ("_log", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._log: JobLog | None = None

    @property
    def storage(self) -> Storage:
        return self._run.env.storage

    @property
    def router(self) -> Router:
        return self._run.env.router

    @property
    def rate_limit(self) -> RateLimiter:
        """Budgets by scope that the whole cluster shares. A refused handler usually returns
        `Throttled(refused.retry_after, cool_down=False)`."""
        return StoreRateLimiter(self.storage.rate_limits, self.cancel, self._left_s)

    @property
    def job_id(self) -> JobId:
        return self._run.job.id

    @property
    def attempt(self) -> int:
        """Which of the `max_attempts` this run counts as; 1 is the first."""
        return self._run.job.attempts

    @property
    def max_attempts(self) -> int:
        return self._run.job.max_attempts

    @property
    def fence(self) -> int:
        """Grows with every claim of the job: a write that carries a lower one is late."""
        return self._run.job.fence

    @property
    def queue(self) -> str:
        return self._run.job.queue

    @property
    def kind(self) -> str:
        return self._run.job.kind

    @property
    def process_id(self) -> str:
        """`"{queue}-{slot}-{host_id}"`, for display."""
        return self._run.slot.process_id

    @property
    def host_id(self) -> str:
        """The ULID of this boot of the worker process."""
        return self._run.env.host_id

    @property
    def enqueued_at(self) -> datetime:
        return from_us(self._run.job.enqueued_us)

    @property
    def scheduled_at(self) -> datetime:
        return from_us(self._run.job.scheduled_us)

    @property
    def deadline(self) -> datetime | None:
        """When the handler's timeout ends this run; None without a timeout."""
        timeout = self._run.handler.options.timeout_s
        return None if timeout is None else from_us(self._run.job.started_us) + timedelta(seconds=timeout)

    @property
    def trace(self) -> Mapping[str, str]:
        """What the enqueuer put into `trace`."""
        found: dict[str, str] = json.loads(self._run.job.trace) if self._run.job.trace else {}
        return found

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that made this job; None for others."""
        return self.trace.get("schedule")

    @property
    def fire_at(self) -> datetime | None:
        """The tick that this job is for, which may be long ago; None for jobs without a schedule."""
        try:
            return datetime.fromisoformat(self.trace["fire_at"])
        except (KeyError, ValueError):
            return None

    @property
    def cancel(self) -> CancelToken:
        return self._run.cancel

    @property
    def log(self) -> JobLog:
        """A logger that carries job, kind, queue, attempt and fence."""
        if self._log is None:
            self._log = JobLog(job_log, self)
        return self._log

    def progress(self, current: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the run is. The newest report wins; written at most once a second, under the fence.

        Raises:
            InvalidInput: a number is not finite.
        """
        text = None if message is None else clean(str(message), 4 * limits.PROGRESS_MESSAGE_LENGTH)
        self._run.report_progress(
            _finite(current, "current"),
            None if total is None else _finite(total, "total"),
            text and text[: limits.PROGRESS_MESSAGE_LENGTH],
        )

    async def enqueue(self, request: EnqueueRequest) -> EnqueueOutcome:
        """Enqueue a follow-up. The router fills an absent queue; this job is recorded as its parent.

        Transient conflicts are tried again after 100 ms, 300 ms and 1 s with the same id, then raised.
        """
        if self._run.transaction is not None:
            return await self._run.transaction.enqueue(request)
        request = self._fill(request)
        if request.id is None:
            request = replace(request, id=new_id())
        store = self.storage.jobs
        return await _retried(lambda: store.enqueue(request, parent_id=self.job_id), f"kind={request.kind}")

    async def enqueue_bulk(self, requests: Sequence[EnqueueRequest]) -> list[EnqueueOutcome]:
        """Enqueue up to 10 000 follow-ups in one transaction, all or nothing; outcomes in request order."""
        if self._run.transaction is not None:
            return await self._run.transaction.enqueue_bulk(requests)
        ids = new_ids(len(requests))
        filled = [
            request if request.id is not None else replace(request, id=job_id)
            for request, job_id in zip(map(self._fill, requests), ids, strict=True)
        ]
        store = self.storage.jobs
        return await _retried(lambda: store.enqueue_bulk(filled, parent_id=self.job_id), f"batch={len(filled)}")

    def transaction(self, *, finish: bool = True) -> HandlerTransaction:
        """A transaction for this handler's own writes, its follow-ups and, with `finish`, its `Done`, in one commit.

            async with ctx.transaction() as tx:
                await tx.execute("UPDATE orders SET paid = 1 WHERE id = ?", (payload["order"],))
                await tx.enqueue(EnqueueRequest("receipt_send", payload))

        Whether this run still owns its job is checked last, under the lock of its row: if not, all is rolled back.
        `ctx.enqueue` inside the block is part of it. Without `finish` the job goes on after the commit. At most 30 s
        on PostgreSQL; on SQLite, where it holds the file's only lock, 5 s or one heartbeat.

        Raises:
            LostOwnership: the job has another owner, or has ended; nothing was written.
            OutcomeUnknown: the answer to the commit was lost.
            TimeoutError: the block took too long; nothing was written.
            InvalidInput: a transaction of this run is open already.
        """
        return HandlerTransaction(self._run, finish=finish)

    def __repr__(self) -> str:
        return f"JobCtx(job_id={self.job_id}, process_id={self.process_id}, host_id={self.host_id})"

    def _left_s(self) -> float | None:
        """How long the handler's timeout leaves this run."""
        deadline = self.deadline
        if deadline is None:
            return None
        return max((deadline - from_us(self._run.env.clock.now_us())).total_seconds(), 0.001)

    def _fill(self, request: EnqueueRequest) -> EnqueueRequest:
        return self._run.fill(request)


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the job's fields to every record, as `extra` for structured logs."""

    def __init__(self, logger: logging.Logger, ctx: JobCtx) -> None:
        self._run = ctx._run
        super().__init__(
            logger,
            {
                "queue": ctx.queue,
                "kind": ctx.kind,
                "job_id": ctx.job_id,
                "attempt": ctx.attempt,
                "fence": ctx.fence,
                "host_id": ctx.host_id,
            },
        )

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log the line. From INFO on it is kept for the job, also where nobody configured logging."""
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # this frame is not the caller
        token = current_run.set(self._run)  # also in a thread that knows nothing of the run
        try:
            if self.logger.isEnabledFor(level):
                super().log(level, msg, *args, **kwargs)
            elif level >= KEPT_FROM:
                keep_unseen(self.logger.name, level, msg, args, kwargs.get("exc_info"), self._run)
        finally:
            current_run.reset(token)


def _finite(value: object, field: str) -> float:
    if type(value) in (int, float):
        try:
            number = float(value)  # type: ignore[arg-type]
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InvalidInput(f"progress {field} must be a finite number, not {repr(value)[:80]}", field=field)


async def _retried(write: Callable[[], Awaitable[T]], what: str) -> T:
    for attempt, delay in enumerate(RETRY_DELAYS_S, start=1):
        try:
            return await write()
        except Exception as error:
            if not is_transient_conflict(error):
                raise
            log.warning("enqueue_retry %s attempt=%d delay_ms=%d error=%s", what, attempt, delay * 1000, error)
            await asyncio.sleep(delay)
    return await write()
