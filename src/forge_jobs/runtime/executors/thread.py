"""Handlers that are plain functions: each call on a thread of its own, the slot waits for it.

A thread cannot be ended from outside. One that ignores its timeout or cancel is left to itself: its slot goes on with
another thread, and what it gives in the end is dropped. They are daemon threads, so neither an idle one nor one that
was left keeps the interpreter from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from forge_jobs.observe import tell
from forge_jobs.runtime import stack, stacks
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.context import run_of
from forge_jobs.runtime.executors.executor import Executor

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.handler import Call, Run
    from forge_jobs.runtime.running import Run as JobRun

log = logging.getLogger("forge_jobs.threads")

NAME: Final = "forge-sync"


def on_thread(function: Call) -> Run:
    """The plain function as `run(ctx, payload)`, which waits for a thread to call it."""

    async def run(ctx: JobCtx, payload: Any) -> Any:
        job_run = run_of(ctx)
        return await job_run.env.threads.call(job_run, function, ctx, payload)

    return run


class Threads:
    """The threads of one worker process: as many as run at once, kept for the next job. Used on the event loop."""

    def __init__(self, env: RuntimeEnv) -> None:
        self._env = env
        self._idle: list[_Worker] = []
        self._closed = False
        self._numbers = itertools.count()
        self.abandoned = 0
        """Threads that were left to themselves and still run."""

    @property
    def full(self) -> bool:
        """Whether so many were abandoned that no more jobs are taken that might add to them."""
        return self.abandoned >= self._env.config.max_abandoned_threads

    def refused_kinds(self, queue: str) -> frozenset[str]:
        """The kinds that are not claimed from this queue for now."""
        return frozenset(self._env.placement.kinds_on(Executor.THREAD, queue)) if self.full else frozenset()

    async def call(self, run: JobRun, function: Call, ctx: JobCtx, payload: Any) -> Any:
        """What `function(ctx, payload)` gives or raises, called on a thread with the context variables of here."""
        context = contextvars.copy_context()
        worker = self._idle.pop() if self._idle else _Worker(self, next(self._numbers))
        call = _Call(self, lambda: context.run(function, ctx, payload))
        call.thread = worker.thread
        run.place = call
        worker.begin(call)
        answer, error = await call.over
        if error is not None:
            try:
                raise error
            finally:
                del error  # its frames hold this one
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError("the handler is a plain function but gave an awaitable; make it `async def`")
        return answer

    def close(self) -> None:
        """Let the idle threads end, and the others when they come back."""
        self._closed = True
        for worker in self._idle:
            worker.end()
        self._idle.clear()

    def came_back(self, worker: _Worker, call: _Call) -> None:
        """A thread is free again."""
        if self._closed:
            worker.end()
        else:
            self._idle.append(worker)
        if call.abandoned:
            was_full = self.full
            self.abandoned -= 1
            if was_full and not self.full:
                tell(log, logging.WARNING, "thread_claims_resumed", abandoned=self.abandoned)
                self._env.exchanger.wake(None)

    def leave(self, run: JobRun) -> None:
        """A thread is left to itself."""
        self.abandoned += 1
        if self.abandoned == self._env.config.max_abandoned_threads:
            kinds = ",".join(self._env.placement.kinds_on(Executor.THREAD))
            tell(log, logging.ERROR, "thread_claims_stopped", abandoned=self.abandoned, kinds=kinds)


class _Call:
    """One call of a handler on a thread. The place of its run."""

    def __init__(self, threads: Threads, work: Callable[[], Any]) -> None:
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self.work: Callable[[], Any] | None = work
        self.over: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        self.abandoned = False
        self.thread: Thread
        self._over_there = False

    def end(self, run: JobRun) -> float:
        """Nothing ends a thread. After a timeout its slot goes on at once, after a cancel it gets one more grace."""
        return 0.0 if run.ended_by is CancelReason.TIMEOUT else run.cancel_grace_s

    def left(self, run: JobRun) -> None:
        if not self._over_there:
            self.abandoned = True
            self._threads.leave(run)

    def sample(self, run: JobRun) -> None:
        stacks.tell(run, f"on thread {self.thread.name}", stack.of_thread(self.thread.ident))

    def deliver(self, worker: _Worker, answer: Any, error: BaseException | None) -> None:
        """Hand over what the function gave. On the thread."""
        try:
            self._loop.call_soon_threadsafe(self._delivered, worker, answer, error)
        except RuntimeError:  # the loop was closed: nobody waits, and there is no next job
            worker.end()

    def _delivered(self, worker: _Worker, answer: Any, error: BaseException | None) -> None:
        self._over_there = True
        if not self.over.done():
            self.over.set_result((answer, error))
        self._threads.came_back(worker, self)


class _Worker:
    """One thread, which makes one call after the other."""

    def __init__(self, threads: Threads, number: int) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.thread = Thread(target=self._serve, name=f"{NAME}-{number}", daemon=True)
        self.thread.start()

    def begin(self, call: _Call) -> None:
        self._calls.put(call)

    def end(self) -> None:
        self._calls.put(None)

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            work, call.work = call.work, None
            assert work is not None
            answer: Any = None
            error: BaseException | None = None
            try:
                answer = work()
            except BaseException as raised:  # a handler's SystemExit ends its job, not this thread
                error = raised
            call.deliver(self, answer, error)
            del call, work, answer, error  # an idle thread holds nothing of its last job
