"""One child process that runs handlers, as its worker sees it: it has one job at a time, or waits for one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import msgspec

from forge_jobs.runtime import outcome as answers
from forge_jobs.runtime import stacks
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.children import Child, ChildError, Exit, environment
from forge_jobs.runtime.children.lines import LogLines
from forge_jobs.runtime.executors.child_calls import do_call
from forge_jobs.runtime.executors.frames import (
    Began,
    BrokenStream,
    Call,
    Cancel,
    Ended,
    Frames,
    FrameTooLong,
    FromChild,
    Hello,
    LogLine,
    Progress,
    Ready,
    RunJob,
    Sample,
    Stack,
    ToChild,
    Unready,
    from_child,
    pack,
)
from forge_jobs.runtime.executors.oom import oom_kills
from forge_jobs.runtime.outcome import ChildDied, ChildRaised
from forge_jobs.storage.error import InvalidInput
from forge_jobs.text import printable

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.running import Run

log = logging.getLogger("forge_jobs.processes")
JOB_LOG: Final = "forge_jobs.job"

START_S: Final = 60.0
"""How long a child may take to import the registry."""
CLOSE_S: Final = 5.0
"""How long a child gets to exit after its pipe was closed."""
GONE_S: Final = 5.0
"""After this long without a child that was told to end its slot goes on: not even SIGKILL ended it."""
LAST_WORDS: Final = 256
BOOT: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv.pop()); "
    "from forge_jobs.runtime.executors.child_main import main; main()"
)
"""The child finds modules where the worker does. With -I neither its environment nor its directory add to that."""
RLIMITS: Final = {"child_memory_mib": ("AS", 2**20), "child_processes": ("NPROC", 1), "child_open_files": ("NOFILE", 1)}


async def start_child(env: RuntimeEnv, registry: str) -> WarmChild:
    """A child that has imported the registry.

    Raises:
        ChildError: it could not be started, or cannot import it.
    """
    config = env.config
    limits = {name: getattr(config, key) * unit for key, (name, unit) in RLIMITS.items() if getattr(config, key)}
    flags = [flag for flag in subprocess._args_from_interpreter_flags() if flag not in ("-I", "-E", "-s")]  # type: ignore[attr-defined]
    child = await env.children.start(
        [sys.executable, *flags, "-I", "-c", BOOT, json.dumps(sys.path)],
        env=environment(inherit=_inherited(config.child_env)),
        cwd=os.getcwd(),
        private=True,
        rlimits=limits,
    )
    warm = WarmChild(child)
    try:
        await warm.greet(registry)
    except BaseException:
        warm.end()
        raise
    return warm


def _inherited(names: tuple[str, ...]) -> list[str]:
    return list(os.environ) if "*" in names else list(names)


class NotTaken(Exception):
    """The child was gone before it called the handler."""


class WarmChild:
    """A running child. The place of the run that it has."""

    def __init__(self, child: Child) -> None:
        assert child.inlet is not None
        assert child.outlet is not None
        self._child = child
        self._inlet, self._outlet = child.inlet, child.outlet
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._out, self._err = LogLines(self._log_line), LogLines(self._log_line)
        self._oom_kills = oom_kills()
        self._greeted: asyncio.Future[Ready] = self._loop.create_future()
        self._answer: asyncio.Future[Ended] | None = None
        self._ctx: JobCtx | None = None
        self._run: Run | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._ending = False
        self._began = 0
        """The last run whose handler was called."""
        self.kinds: frozenset[str] = frozenset()
        self.jobs = 0
        """Given to it so far."""
        self._outlet.listen(self._on_data)
        child.stdout.listen(self._out.feed)
        child.stderr.listen(self._err.feed)
        child.on_exit(self._on_exit)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def usable(self) -> bool:
        """Whether it can have a job, as far as anybody knows."""
        return not self._ending and self._run is None and self._child.running and not self._inlet.broken

    async def greet(self, registry: str) -> None:
        """Have it import the registry."""
        level = min(logging.getLogger().getEffectiveLevel(), logging.getLogger(JOB_LOG).getEffectiveLevel())
        self._send(Hello(registry, level))
        try:
            async with asyncio.timeout(START_S):
                self.kinds = frozenset((await self._greeted).kinds)
        except TimeoutError as error:
            raise ChildError(f"a child process did not import {registry} within {START_S:g} s") from error

    async def run(self, run: Run, ctx: JobCtx, payload: str) -> Any:
        """Give it a job and wait for what becomes of it; see `Processes.call`.

        Raises:
            NotTaken: it was dead, or died before it called the handler.
        """
        self.jobs += 1
        number = self.jobs
        try:
            job = run.job
            if payload is not job.payload:
                job = msgspec.structs.replace(job, payload=payload)
            frame = pack(RunJob(number, job, run.slot.process_id, run.env.host_id, run.timeout_s))
        except FrameTooLong as error:
            raise InvalidInput(f"the job does not fit into a child process: {error}", field="payload") from error
        self._run, self._ctx, run.place = run, ctx, self
        answer = self._answer = self._loop.create_future()

        def pass_on(reason: CancelReason) -> None:
            self._send(Cancel(number, reason.value))

        try:
            if not self._inlet.write(frame) and self._inlet.broken:
                self.end()
                raise NotTaken
            run.cancel.on_fire(pass_on)
            return self._read(await answer)
        except asyncio.CancelledError:
            if answer.cancelled() or not answer.done():  # nobody waits for it any longer: what it does now is lost
                self.end()
            raise
        finally:
            run.cancel.forget(pass_on)
            self._run = self._ctx = self._answer = run.place = None
            for call in self._calls:
                call.cancel()

    def end(self, run: Run | None = None) -> float:
        """Have its whole group ended."""
        self._ending = True
        self._child.begin_end()
        return GONE_S

    def left(self, run: Run) -> None:
        """Nothing more can be done about it."""

    def sample(self, run: Run) -> None:
        """The child answers, if it can: not while foreign code holds its interpreter."""
        self._send(Sample(self.jobs))

    def close(self) -> None:
        """Let it exit by itself: it sees the end of its pipe, and is ended if it does not go."""
        if not self._ending:
            self._ending = True
            self._inlet.close_when_sent()
            self._loop.call_later(CLOSE_S, self._child.begin_end)

    # What it says

    def _on_data(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._hear(from_child.decode(body))
        except (BrokenStream, msgspec.DecodeError, InvalidInput) as error:
            log.error("child_unreadable pid=%d error=%s", self.pid, printable(str(error)))
            self._settle(ChildRaised(f"its child process sent what cannot be read: {error}", None))
            self.end()

    def _hear(self, message: FromChild) -> None:
        match message:
            case Ready():
                self._greet_with(message)
            case Unready(message=text):
                self._greet_with(ChildError(f"a child process cannot use its registry: {text}; {ENVIRONMENT_HINT}"))
            case Began(number=number):
                self._began = number
            case LogLine():
                self._log(message)
            case Progress(current=current, total=total, message=text) if self._ctx is not None:
                self._ctx.progress(current, total, text)
            case Call() if self._ctx is not None:
                self._begin(self._do(message, self._ctx))
            case Stack(number=number, lines=lines) if number == self.jobs and self._run is not None:
                stacks.tell(self._run, f"in child process {self.pid}", lines)
            case Ended(number=number) if number == self.jobs:
                self._settle(message)

    def _greet_with(self, greeting: Ready | ChildError) -> None:
        if not self._greeted.done():
            if isinstance(greeting, Ready):
                self._greeted.set_result(greeting)
            else:
                self._greeted.set_exception(greeting)

    def _settle(self, ended: Ended | Exception) -> None:
        if self._answer is not None and not self._answer.done():
            if isinstance(ended, Ended):
                self._answer.set_result(ended)
            else:
                self._answer.set_exception(ended)

    def _read(self, ended: Ended) -> answers.JobOutcome:
        match ended.answer:
            case "done":
                return answers.Done()
            case "throttled":
                return answers.Throttled(ended.retry_after_s, ended.cool_down)
            case "failed":
                return answers.Failed(ended.message)
            case "dead":
                return answers.Dead(ended.message)
            case "cancelled":
                raise asyncio.CancelledError
            case "odd":
                raise answers.FailedError(ended.message)
            case _:
                raise ChildRaised(ended.message, ended.traceback, final=ended.final, delay_s=ended.delay_s)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of this run; ended with it."""
        task = self._loop.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _do(self, call: Call, ctx: JobCtx) -> None:
        self._send(await do_call(call, ctx))

    def _log(self, line: LogLine) -> None:
        if line.logger == JOB_LOG and self._ctx is not None:
            self._ctx.log.log(line.level, "%s", line.message)
        else:
            logging.getLogger(line.logger).log(line.level, "%s", line.message)

    def _log_line(self, text: str, level: int) -> None:
        """What it prints."""
        text = printable(text)
        if self._ctx is not None:
            self._ctx.log.log(level, "%s", text)
        else:
            log.log(level, "child_says pid=%d %s", self.pid, text)

    def _send(self, message: ToChild) -> None:
        self._inlet.write(pack(message))

    # How it ends

    def _on_exit(self, how: Exit) -> None:
        """What it left in its pipes counts: it may have answered and exited."""
        for outlet in (self._outlet, self._child.stdout, self._child.stderr):
            outlet.read_rest()
        for lines in (self._out, self._err):
            lines.feed(b"")
        expected, self._ending = self._ending, True
        if not expected:
            log.warning("child_died pid=%d cause=%s", self.pid, self._cause(how))
        self._greet_with(ChildError(f"a child process ended while it imported its registry: {self._story(how)}"))
        if self._answer is not None and not self._answer.done():
            if expected:
                self._answer.cancel()  # it was ended by us
            elif self._began < self.jobs:
                self._answer.set_exception(NotTaken())
            else:
                self._answer.set_exception(ChildDied(f"child process died: {self._story(how)}"))
        self._child.close()

    def _cause(self, how: Exit) -> str:
        if how.signal != signal.SIGKILL:
            return str(how)
        if self._oom_kills is None:
            return f"{how}, perhaps by the kernel as memory was short"
        if (oom_kills() or 0) > self._oom_kills:
            return f"oom, the kernel ended it as memory was short ({how})"
        return str(how)

    def _story(self, how: Exit) -> str:
        words = self._err.last.strip()[-LAST_WORDS:]
        return self._cause(how) + (f": {words}" if words else "")


ENVIRONMENT_HINT: Final = (
    'children get a small environment: name the variables that they need in `child_env`, or "*" for all'
)
