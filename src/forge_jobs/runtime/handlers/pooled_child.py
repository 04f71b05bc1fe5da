"""One child of a worker pool: which job it has, what it says about it, and why it is not used any longer."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from forge_jobs.limits import CHILD_LINE_BYTES
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.children import Child, Exit
from forge_jobs.runtime.children.child import STOP_LOOK_S
from forge_jobs.runtime.children.lines import Lines, LineTooLong, LogLines
from forge_jobs.runtime.context import run_of
from forge_jobs.runtime.handlers import line_protocol as protocol
from forge_jobs.runtime.outcome import ChildDied, Failed, JobOutcome
from forge_jobs.runtime.running import RunState
from forge_jobs.storage.error import InvalidInput
from forge_jobs.text import printable

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.handlers.child_pool import ChildPool

log = logging.getLogger("forge_jobs.worker_pool")

EXIT_S: Final = 1.0
"""How long a child that closed its output gets to exit, before it is ended."""
CLOSE_S: Final = 5.0
"""How long a child gets to exit after its input was closed."""
KILL_WAIT_S: Final = 1.5
"""How long the end of a run waits for the end of its child. SIGKILL comes after 2 s; a job does not wait for that."""
LAST_WORDS: Final = 256


class NotTaken(Exception):
    """The child was gone before it got anything of the job."""


class PooledChild:
    """A running child with at most one job. What it writes without having a job ends it."""

    def __init__(self, pool: ChildPool, child: Child) -> None:
        assert child.stdin is not None
        self.pool = pool
        self.child = child
        self.started_at = time.monotonic()
        self.jobs = 0
        """Answered so far."""
        self.retired = False
        """It gets no other job."""
        self.faulty = False
        """It ended by itself, or was ended for breaking the rules."""
        self.over = asyncio.Event()
        self._ctx: JobCtx | None = None
        self._answer: asyncio.Future[JobOutcome] | None = None
        self._request_bytes = 0
        self._let_go = False
        """We ended it, or let it exit."""
        self._stdin = child.stdin
        self._lines = Lines(CHILD_LINE_BYTES)
        self._log = LogLines(self._log_line)
        child.stdout.listen(self._on_output)
        child.stderr.listen(self._log.feed)
        child.on_exit(self._on_exit)

    @property
    def ready(self) -> bool:
        """Whether it can have a job: alive and silent, as far as its output tells right now."""
        if not self.retired:
            self.child.stdout.read_once()
        return not self.retired

    async def run(self, ctx: JobCtx, request: bytes) -> JobOutcome:
        """Give it a job and wait for its answer.

        Raises:
            NotTaken: it was gone before it read any of it.
            ChildDied: it ended while it had the job.
        """
        self._request_bytes = len(request)
        sent = self._stdin.write(request)
        if self._stdin.broken and not sent:
            self._fault("it closed its input")
            raise NotTaken
        self._ctx = ctx
        run = run_of(ctx)
        grace_s = run.cancel_grace_s
        answer: asyncio.Future[JobOutcome] = asyncio.get_running_loop().create_future()
        self._answer = answer
        ctx.cancel.on_fire(lambda reason: self._tell_cancel(ctx, reason, grace_s))
        try:
            return await answer
        except asyncio.CancelledError:  # its grace is over
            if self._answer is not answer:  # it answered in the same moment, and may have the next job already
                if run.state is RunState.ENDING and not answer.cancelled():
                    return answer.result()
                raise
            self._ctx = self._answer = None
            self.end()
            await self.child.until_gone(min(KILL_WAIT_S, 0.8 * grace_s))
            raise
        except ChildDied:
            how = self.child.exit
            if how is not None and how.asked_to_stop:
                await ctx.cancel.fired_within(STOP_LOOK_S)
            raise

    def end(self) -> None:
        """End its group; what it says from now on does not matter."""
        self.retired = self._let_go = True
        self.child.begin_end()

    def close(self) -> None:
        """Let it exit by itself, between jobs: it sees the end of its input, and is ended if it does not go."""
        if not self.retired:
            self.retired = self._let_go = True
            self._stdin.close_when_sent()
            asyncio.get_running_loop().call_later(CLOSE_S, self.child.begin_end)

    # What it says

    def _on_output(self, data: bytes) -> None:
        """A chunk of its output: lines about its job, the last of which is the answer, and nothing else."""
        if not data:
            self._on_end_of_output()
            return
        if self.retired and self._ctx is None:
            return
        surplus = self._ctx is None
        try:
            for line in self._lines.feed(data):
                if self._ctx is None:
                    surplus = True
                    break
                self._on_line(self._ctx, line)
        except LineTooLong:
            self._refuse(f"worker wrote a line of more than {CHILD_LINE_BYTES} bytes")
            return
        except protocol.ProtocolError as error:
            self._refuse(str(error))
            return
        except Exception:  # a fault of ours must not leave the job without an end
            log.exception("line_fault kind=%s", self.pool.kind)
            self._refuse("what the worker wrote could not be handled")
            return
        if self._ctx is not None:
            return
        if surplus or self._lines.unfinished:
            self._fault(f"it wrote while it had no job: {data[-80:]!r}")
        elif self.retired:
            self.end()
        else:
            self.pool.returned(self)

    def _on_line(self, ctx: JobCtx, line: bytes) -> None:
        match protocol.read_line(line, ctx.job_id, require_id=self.pool.require_id):
            case protocol.Answer(outcome=outcome):
                self.jobs += 1
                self._settle(outcome)
            case protocol.Progress(current=current, total=total, message=message):
                try:
                    ctx.progress(current, total, message)
                except InvalidInput as error:
                    ctx.log.warning("progress_ignored error=%s", error)
            case protocol.LogEntry(level=level, message=message):
                self._log.pass_on(message, level)
            case protocol.Unknown(event=event):
                ctx.log.debug("event_ignored event=%s", event)

    def _settle(self, outcome: JobOutcome) -> None:
        answer, self._answer, self._ctx = self._answer, None, None
        if answer is not None and not answer.done():
            answer.set_result(outcome)

    def _refuse(self, reason: str) -> None:
        """It broke the rules: the job that it has failed, and it is ended."""
        self._fault(reason)
        self._settle(Failed(reason))

    def _fault(self, reason: str) -> None:
        log.warning("child_ended kind=%s pid=%d reason=%s", self.pool.kind, self.child.pid, printable(reason))
        self.faulty = True
        self.end()

    def _log_line(self, text: str, level: int) -> None:
        text = printable(text)
        if self._ctx is not None:
            self._ctx.log.log(level, "%s", text)
        else:
            log.log(level, "child_says kind=%s pid=%d %s", self.pool.kind, self.child.pid, text)

    # What it is told

    def _tell_cancel(self, ctx: JobCtx, reason: CancelReason, grace_s: float) -> None:
        if self._ctx is not ctx:
            return
        self.retired = True
        self._stdin.write(protocol.cancel_line(ctx.job_id, reason))
        if reason in (CancelReason.PAUSE, CancelReason.LOST_OWNERSHIP):  # the others are followed up by the runtime
            asyncio.get_running_loop().call_later(grace_s, self._grace_over, ctx)

    def _grace_over(self, ctx: JobCtx) -> None:
        if self._ctx is ctx and self._answer is not None:
            self._answer.cancel()

    # How it ends

    def _on_end_of_output(self) -> None:
        if self.child.running:
            self.retired = True
            asyncio.get_running_loop().call_later(EXIT_S, self.child.begin_end)

    def _on_exit(self, how: Exit) -> None:
        """What it left in its pipes counts: it may have answered and exited."""
        self.retired = True
        untaken = self._stdin.untaken_bytes
        self.child.stdout.read_rest()
        self.child.stderr.read_rest()
        self._log.feed(b"")
        if self._answer is not None or not self._let_go:
            self.faulty = True
            log.warning("child_died kind=%s pid=%d cause=%s", self.pool.kind, self.child.pid, how)
        answer, self._answer, self._ctx = self._answer, None, None
        if answer is not None and not answer.done():
            untouched = self._request_bytes > 0 and untaken >= self._request_bytes
            answer.set_exception(NotTaken() if untouched else ChildDied(self._story(how)))
        self.child.close()
        self.over.set()
        self.pool.ended(self)

    def _story(self, how: Exit) -> str:
        words = self._log.last.strip()[-LAST_WORDS:]
        return f"worker process died: {how}" + (f": {words}" if words else "")
