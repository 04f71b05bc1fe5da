"""The jobs this process owns, from the claim until the store has its outcome, and how they are told to stop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from forge_jobs import tracing
from forge_jobs.runtime.cancel import CancelReason, CancelToken
from forge_jobs.storage.types.job import EnqueueRequest, JobRecord
from forge_jobs.storage.types.process import Claimed

if TYPE_CHECKING:
    from forge_jobs.runtime.deadlines import Deadline
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.executors.executor import Place
    from forge_jobs.runtime.handler import RegisteredHandler
    from forge_jobs.runtime.job_log import Lines
    from forge_jobs.runtime.transaction import HandlerTransaction
    from forge_jobs.runtime.worker import Slot
    from forge_jobs.storage.types.finalize import FinalizeOutcome

log = logging.getLogger("forge_jobs.running")

_PROGRESS: Final = threading.Lock()
"""Between handlers on threads that report and the event loop that writes."""


class RunState(Enum):
    """Where a run stands."""

    RUNNING = auto()
    ENDING = auto()  # its task was cancelled by us
    ENDED = auto()  # the handler is over, the outcome is on its way to the store
    ABANDONED = auto()  # the handler ignored its end: its result is ignored, its slot goes on without it


class Run:
    """One run of one job in one slot."""

    __slots__ = (
        "alone",
        "cancel",
        "claim_traced",
        "claimed",
        "committed",
        "committing",
        "concluded",
        "ended_by",
        "env",
        "fenced",
        "handler",
        "job",
        "log_lines",
        "lost",
        "place",
        "progress_due",
        "slot",
        "span",
        "state",
        "task",
        "timeout",
        "timeout_s",
        "transaction",
    )

    def __init__(self, env: RuntimeEnv, slot: Slot, job: JobRecord, handler: RegisteredHandler, *, alone: bool) -> None:
        self.env = env
        self.slot = slot
        self.job = job
        self.handler = handler
        self.alone = alone
        self.claimed = Claimed(job.id, job.fence)
        self.claim_traced: tracing.Exchanged | None = None
        self.span: tracing.RunSpan | None = None
        """These two are there in processes that trace: the exchange that brought the job, and the span of the run."""
        self.cancel = CancelToken()
        self.state = RunState.RUNNING
        self.task: asyncio.Task[None] | None = None
        self.place: Place | None = None
        """Where the handler runs, if not in the task of its slot."""
        self.ended_by: CancelReason | None = None
        """Why its task was cancelled by us, if it was."""
        self.timeout: Deadline | None = None
        self.timeout_s = handler.options.timeout_s
        """The kind's, or what `limit` made of it."""
        self.lost = False
        self.fenced = False
        self.progress_due: tuple[float, float | None, str | None] | None = None
        self.log_lines: Lines | None = None
        """What the handler logged, if it did."""
        self.transaction: HandlerTransaction | None = None
        """The one that is open."""
        self.committing = False
        """The commit of a transaction that ends the job is under way: the store may know already that it is over."""
        self.committed = False
        """A transaction of the handler's has ended the job: it is done, whatever the handler does now."""
        self.concluded: FinalizeOutcome | None = None
        """What is going to be recorded, once the handler is over and hooks are still running."""

    @property
    def cancel_grace_s(self) -> float:
        own = self.handler.options.cancel_grace
        return own if own is not None else self.env.config.cancel_grace_s

    def interrupt(self, reason: CancelReason) -> None:
        """Tell the handler to stop, cooperatively."""
        if self.state is RunState.RUNNING:
            self.cancel.fire(reason)

    def cancel_by_user(self) -> None:
        """Tell the handler that its job was cancelled; end it if it does not listen."""
        if self.cancel.reason is CancelReason.USER:
            return
        if self.cancel.fire(CancelReason.USER):
            self.happened("cancel_seen")
            log.info("cancel_seen job_id=%s kind=%s queue=%s", self.job.id, self.job.kind, self.job.queue)
        self.env.deadlines.after(self.cancel_grace_s, lambda: self.end(CancelReason.USER))

    def limit(self, seconds: float) -> None:
        """End the run `seconds` from now, unless its kind's timeout does so earlier."""
        if self.timeout_s is not None and self.timeout_s <= seconds:
            return
        if self.timeout is not None:
            self.timeout.cancel()
        self.timeout_s = seconds
        self.timeout = self.env.deadlines.after(seconds, self.time_out)

    def pause_timeout(self) -> None:
        """What comes now is not the handler's time."""
        if self.timeout is not None:
            self.timeout.cancel()

    def resume_timeout(self) -> None:
        """The handler's time begins."""
        if self.timeout_s is not None:
            self.timeout = self.env.deadlines.after(self.timeout_s, self.time_out)

    def time_out(self) -> None:
        """The handler's time is up: signal, grace, end."""
        if self.state is RunState.RUNNING and self.ended_by is None:
            self.env.health.counts["timeouts"] += 1
            self.env.observer.count("timeouts", self.job.queue, self.job.kind)
            self.happened("job_timeout")
            self.ended_by = CancelReason.TIMEOUT
            self.cancel.fire(CancelReason.TIMEOUT)
            self.env.deadlines.after(self.cancel_grace_s, lambda: self.end(CancelReason.TIMEOUT))

    def end(self, reason: CancelReason) -> None:
        """Cancel the handler's task, or end it where it runs; after a further grace abandon it."""
        if self.state is not RunState.RUNNING or self.task is None:
            return
        self.state = RunState.ENDING
        if self.ended_by is None:
            self.ended_by = reason
        if self.place is not None:
            patience_s = self.place.end(self)
        else:
            self.task.cancel(f"forge-jobs: {reason.value}")
            patience_s = max(self.cancel_grace_s, 0.01)
        self.env.deadlines.after(patience_s, self._abandon)

    def lose(self) -> None:
        """The job has another owner, or none: nothing of this run may be written."""
        if not self.lost:
            self.lost = True
            self.cancel.fire(CancelReason.LOST_OWNERSHIP)
            self.env.observer.count("lost", self.job.queue, self.job.kind)
            self.happened("lost_ownership")
            log.warning("lost_ownership job_id=%s kind=%s fence=%d", self.job.id, self.job.kind, self.job.fence)

    def happened(self, name: str) -> None:
        """Tell hooks of something that happened to this run."""
        job = self.job
        self.env.observer.happened(
            name, job_id=job.id, queue=job.queue, kind=job.kind, attempt=job.attempts, fence=job.fence
        )

    def fill(self, request: EnqueueRequest) -> EnqueueRequest:
        """A follow-up with what it left out, in the trace of this job."""
        return tracing.inherit(self.env.fill(request), self.job.trace)

    def report_progress(self, current: float, total: float | None, message: str | None) -> None:
        if self.state is not RunState.ABANDONED and not self.lost:
            with _PROGRESS:
                self.progress_due = (current, total, message)

    def take_progress(self) -> tuple[float, float | None, str | None] | None:
        """The newest report, if it was not taken yet."""
        if self.progress_due is None:
            return None
        with _PROGRESS:
            taken, self.progress_due = self.progress_due, None
        return taken

    def _abandon(self) -> None:
        if self.state is RunState.ENDING:
            self.slot.abandon(self)


class RunningTable:
    """All runs of the process by claim. Changed on the event loop; read by the heartbeat's thread."""

    def __init__(self) -> None:
        self._runs: dict[Claimed, Run] = {}

    def add(self, run: Run) -> None:
        self._runs[run.claimed] = run

    def remove(self, run: Run) -> None:
        self._runs.pop(run.claimed, None)

    def get(self, claimed: Claimed) -> Run | None:
        return self._runs.get(claimed)

    def of_job(self, job_id: str) -> Run | None:
        return next((run for run in self if run.job.id == job_id), None)

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, claimed: object) -> bool:
        return claimed in self._runs

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    @property
    def handlers_running(self) -> int:
        """Runs whose handler is not over yet."""
        return sum(1 for run in self if run.state in (RunState.RUNNING, RunState.ENDING))

    def snapshot(self) -> list[Claimed]:
        """Every claim at this moment, safe to take from another thread."""
        return [claimed for claimed, run in list(self._runs.items()) if not run.committed]

    def by_slot(self) -> dict[str, str]:
        """Process id of each busy slot to its job, safe to take from another thread."""
        return {run.slot.process_id: run.job.id for run in list(self._runs.values())}

    def interrupt(self, reason: CancelReason, queue: str | None = None) -> None:
        """Tell all handlers, or those of one queue, to stop."""
        for run in self:
            if queue is None or run.job.queue == queue:
                run.interrupt(reason)
