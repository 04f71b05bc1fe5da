"""The child's end of the pipe to its worker. One thread reads; whoever has something to say writes."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from queue import SimpleQueue
from types import CoroutineType
from typing import Any, Final

from forge_jobs.runtime import stack
from forge_jobs.runtime.cancel import CancelReason, CancelToken
from forge_jobs.runtime.executors.frames import (
    CHILD_READS,
    CHILD_WRITES,
    Call,
    Cancel,
    Frames,
    FromChild,
    Hello,
    Reply,
    RunJob,
    Sample,
    Stack,
    ToChild,
    error_of,
    pack,
    to_child,
)

CHUNK_BYTES: Final = 64 * 1024


class Link:
    """What the worker says goes to whom it concerns: jobs to the main thread, replies to their callers, cancels to the
    token of the run."""

    def __init__(self) -> None:
        for fd in (CHILD_READS, CHILD_WRITES):  # programs that a handler starts have no business with them
            os.set_inheritable(fd, False)
        self.hello: SimpleQueue[Hello | None] = SimpleQueue()
        self.jobs: SimpleQueue[tuple[RunJob, CancelToken] | None] = SimpleQueue()
        """Each with the token of its run. None: the worker closed the pipe."""
        self.token = CancelToken()
        self._run_number = 0
        self.working = False
        """Whether a handler is at work."""
        self.coroutine: CoroutineType[Any, Any, Any] | None = None
        """The handler at work, if it is one."""
        self._numbers = itertools.count(1)
        self._replies: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Future[Reply]]] = {}
        self._writing = threading.Lock()
        self._muted = False
        os.register_at_fork(after_in_child=self._mute)

    def start(self) -> None:
        threading.Thread(target=self._read, name="forge-link", daemon=True).start()

    def send(self, message: FromChild) -> None:
        """Write a message; blocks while the worker reads no further.

        Raises:
            FrameTooLong: it does not fit into a frame.
        """
        frame = memoryview(pack(message))
        with self._writing:
            while frame and not self._muted:
                try:
                    frame = frame[os.write(CHILD_WRITES, frame) :]
                except OSError:  # the worker is gone; the guard ends this process
                    self._muted = True

    async def call(self, verb: str, *arguments: Any) -> Any:
        """Have the worker do something with the job's context.

        Raises:
            ForgeError: what the worker's side raised.
            FrameTooLong: the arguments do not fit into a frame.
        """
        number, loop = next(self._numbers), asyncio.get_running_loop()
        waiting: asyncio.Future[Reply] = loop.create_future()
        self._replies[number] = (loop, waiting)
        try:
            self.send(Call(number, verb, list(arguments)))
            reply = await waiting
        finally:
            self._replies.pop(number, None)
        if reply.error is not None:
            raise error_of(reply.error)
        return reply.value

    def _read(self) -> None:
        frames = Frames()
        while True:
            try:
                data = os.read(CHILD_READS, CHUNK_BYTES)
            except OSError:
                data = b""
            if not data:
                break
            for body in frames.feed(data):
                self._hear(to_child.decode(body))
        self.token.fire(CancelReason.LOST_OWNERSHIP)
        self.hello.put(None)
        self.jobs.put(None)

    def _hear(self, message: ToChild) -> None:
        match message:
            case Hello():
                self.hello.put(message)
            case RunJob():
                self.token, self._run_number = CancelToken(), message.number
                self.jobs.put((message, self.token))
            case Cancel(number=number, reason=reason):
                if number == self._run_number:
                    self.token.fire(CancelReason(reason))
            case Sample(number=number):
                if number == self._run_number and self.working:
                    self.send(Stack(number, self._where()))
            case Reply(number=number):
                self._reply(number, message)

    def _where(self) -> list[str]:
        """Where the handler is. A coroutine that waits has no frames on the thread of its event loop."""
        coroutine = self.coroutine
        if coroutine is not None and not coroutine.cr_running:
            return stack.of_coroutine(coroutine)
        return stack.of_thread(threading.main_thread().ident)

    def _reply(self, number: int, reply: Reply) -> None:
        waiting = self._replies.pop(number, None)
        if waiting is None:
            return
        loop, future = waiting
        try:
            loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(reply))
        except RuntimeError:  # that loop was closed
            pass

    def _mute(self) -> None:
        """In a process that a handler forked: what it says would be taken for the child's."""
        self._muted = True
        self._writing = threading.Lock()
