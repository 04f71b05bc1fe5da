"""A slot runs one job at a time: its own task for as long as the slot is open, no task per job."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from forge_jobs import failpoints, tracing
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.conclude import conclude, timed_out
from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.hooks import seen
from forge_jobs.runtime.job_log import current_run
from forge_jobs.runtime.running import Run, RunState
from forge_jobs.storage.types.finalize import ErrorText, Failed, FinalizeOutcome, Released
from forge_jobs.storage.types.job import ErrorKind, JobRecord

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.exchange import Line
    from forge_jobs.runtime.outcome import RunOutcome

log = logging.getLogger("forge_jobs.worker")


class Slot:
    """A place in this process that runs one job of one queue at a time."""

    __slots__ = ("_next", "_run", "closing", "env", "index", "line", "process_id", "reserved", "task")

    def __init__(self, env: RuntimeEnv, line: Line, index: int) -> None:
        self.env = env
        self.line = line
        self.index = index
        self.process_id = f"{line.queue}-{index}-{env.host_id}"
        self.closing = False
        self.reserved = False
        """A claim for it is under way."""
        self.task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[Run | None] | None = None
        self._run: Run | None = None

    @property
    def busy(self) -> bool:
        return self._run is not None

    def give(self, job: JobRecord, *, alone: bool = False) -> None:
        """Run a claimed job next. A job whose handler vanished meanwhile is released, not failed."""
        handler = self.env.placement.handler(job.kind, job.queue)
        if handler is None or self._next is None or self._next.done():
            self.env.exchanger.release(job)
            if self._next is not None and not self._next.done():
                self.line.idle(self)
            return
        run = self._run = Run(self.env, self, job, handler, alone=alone)
        self.env.running.add(run)
        self.env.started += 1
        self._next.set_result(run)

    def close(self) -> None:
        """Close when idle; a busy slot finishes its job first, a reserved one waits for the answer to its claim."""
        self.closing = True
        if not self.reserved and self._next is not None and not self._next.done():
            self._next.set_result(None)

    def abandon(self, run: Run) -> None:
        """Go on without a handler that ignored its end: its result is ignored, a new task takes the slot."""
        run.state = RunState.ABANDONED
        self.env.health.counts["abandoned"] += 1
        self.env.observer.count("abandoned", run.job.queue, run.job.kind)
        run.happened("abandoned")
        reason = run.ended_by.value if run.ended_by is not None else "none"
        log.error(
            "abandoned job_id=%s kind=%s reason=%s: the handler ignores its end", run.job.id, run.job.kind, reason
        )
        if run.place is not None:
            run.place.left(run)
        outcome: FinalizeOutcome
        match run.ended_by:
            case _ if run.concluded is not None:
                outcome = run.concluded
            case CancelReason.TIMEOUT:
                outcome = timed_out(run)
            case CancelReason.USER:
                error = ErrorText("abandoned: it ignored the cancel", kind=ErrorKind.CANCELLED)
                outcome = Failed(error=error, delay=run.env.config.stale_after)
            case _:
                outcome = Released()
                self.env.health.counts["abandoned_returned"] += 1
        self._run = None
        self.env.exchanger.finished(run, outcome)
        self.line.supervisor.replace(self)

    async def serve(self) -> None:
        """Run jobs until the slot is closed. The task of the slot."""
        loop = asyncio.get_running_loop()
        while not self.closing:
            self._next = loop.create_future()
            self.line.idle(self)
            run = await self._next
            if run is None:
                return
            run.task = self.task
            outcome = await self._execute(run)
            if run.state is RunState.ABANDONED:  # another task has the slot now
                return
            self._run = None
            self.env.exchanger.finished(run, outcome)

    async def _execute(self, run: Run) -> FinalizeOutcome:
        """The one frame that calls a handler. Nothing a handler raises gets past it: its SystemExit ends the job,
        not the worker."""
        if run.timeout_s is not None:
            run.timeout = self.env.deadlines.after(run.timeout_s, run.time_out)
        handler, hooks, ctx = run.handler, self.env.handlers.hooks, JobCtx(run)
        answer: object = None
        error: BaseException | None = None
        if failpoints.armed:
            failpoints.hit("handler.before")
        current_run.set(run)
        span = run.span = tracing.begin_run(run.job, run.claim_traced)
        try:
            payload = handler.reader.decode(run.job.payload)
            answer = await (hooks.run(handler.run, ctx, payload) if hooks.wraps else handler.run(ctx, payload))
        except BaseException as raised:
            error = raised
            if isinstance(raised, asyncio.CancelledError) and run.state is RunState.RUNNING:
                self._note_foreign_cancellation()
        if failpoints.armed:
            failpoints.hit("handler.after")
        if hooks.after and run.state is not RunState.ABANDONED:
            run.concluded = conclude(run, answer, error)
            await self._after(run, ctx, seen(run.concluded))
        if run.state is not RunState.ABANDONED:
            ending, run.state = run.state is RunState.ENDING, RunState.ENDED
            if ending:
                await self._absorb_cancellation()
        if run.timeout is not None:
            run.timeout.cancel()
        outcome = run.concluded or conclude(run, answer, error)
        if span is not None:
            tracing.end_run(span, run.job, outcome, error)
        current_run.set(None)
        if error is not None:
            BaseException.with_traceback(error, None)  # frames hold the handler's locals; the text is kept
        return outcome

    async def _after(self, run: Run, ctx: JobCtx, outcome: RunOutcome) -> None:
        """Tell the `after_run` hooks, whose faults change nothing any more. After our cancel the rest hear nothing."""
        run.place = None  # the handler is over wherever it ran; what can be ended now is this task
        for hook in self.env.handlers.hooks.after:
            try:
                await hook(self.env.state, ctx, outcome)
            except BaseException as fault:
                self.env.health.counts["hook_faults"] += 1
                log.exception("hook_fault hook=after_run name=%s job_id=%s", hook.name, run.job.id)
                if isinstance(fault, asyncio.CancelledError):
                    if run.state is RunState.RUNNING:
                        self._note_foreign_cancellation()
                    return

    def _note_foreign_cancellation(self) -> None:
        """The task was cancelled by somebody else: by the handler itself, or because the program ends. The job is
        recorded, and this task ends; if the program goes on the supervisor opens the slot again."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            self.closing = True

    async def _absorb_cancellation(self) -> None:
        """Our cancel() may have come too late to be raised inside the handler: let it be raised here."""
        task = asyncio.current_task()
        assert task is not None
        while task.cancelling():
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                pass
            task.uncancel()
