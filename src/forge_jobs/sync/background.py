"""The event loop of synchronous programs: one per process, on a daemon thread, for all their stores.

A store lives on the loop from its opening to its closing. Before a fork every store is closed and the thread ended;
parent and child open again at their next call. Opening again in the child alone would not do: SQLite notes in memory
which locks the process has on a file, and a child inherits the notes without the locks. Whatever it opened then would
trust locks that nobody holds, or wait for ever for one that a thread of the parent held.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import copy
import logging
import os
import threading
from collections.abc import Awaitable, Callable

# The thread pool is imported here, and not when it is first needed, for the order of the hooks before a fork. Its own
# takes a lock without which a call under way cannot end, and hooks run from the last registered to the first.
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias, TypeVar

from forge_jobs.storage.error import ConfigError, ForkedConnection, OutcomeUnknown, StoreUnavailable
from forge_jobs.storage.protocol import Storage

log = logging.getLogger("forge_jobs.sync")

FORK_LIMIT_S: Final = 15.0
"""How long a fork waits for calls under way and for stores to close. One that is open even then is refused in the
child."""
EXIT_LIMIT_S: Final = 5.0
"""How long the end of the program waits for stores to close. What was acknowledged is safe without."""
JOIN_LIMIT_S: Final = 1.0
OPENERS: Final = 4
"""Most threads for what blocks while stores are opened."""
T = TypeVar("T")
Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[Storage]]
Work: TypeAlias = Callable[[Storage], Awaitable[T]]


class BackgroundStore:
    """A store as threads use it: opened by its first call, shared by all threads, opened again after a fork.

    `limit_s` bounds the opening and, apart from it, each call. One `in_memory` cannot be opened again with what it
    held: it stays with the parent, and a child is refused.
    """

    def __init__(self, opener: Opener, *, limit_s: float, in_memory: bool) -> None:
        self._held: _Held | None = None
        self._closed = False
        self._opener = opener
        self._limit_s = limit_s
        self._in_memory = in_memory

    def open(self) -> None:
        """Open the store now, unless it is open.

        Raises:
            ConfigError: an event loop runs in this thread.
            ForkedConnection: the store is still the parent process's.
            StoreUnavailable: it was closed, or is not open within the limit. Or what the opening raised.
        """
        refuse_on_an_event_loop()
        self._open()

    def call(self, work: Work[T], *, ids: tuple[str, ...] | None = None) -> T:
        """What `work` gives on the loop, or raises there. A caller that is interrupted leaves it to its end.

        Raises:
            OutcomeUnknown: a write, of jobs with these `ids`, was not answered within the limit.
            StoreUnavailable: neither was a read, which has no `ids`. And what `open` raises.
        """
        refuse_on_an_event_loop()
        answer: Future[T] = Future()
        while not self._open().submit(work, answer):
            continue  # it was closed in between: by a fork, then it is opened again, or for good, then that is raised
        try:
            answer.exception(self._limit_s)  # waits, and does not raise a TimeoutError that is the answer
        except TimeoutError:
            message = f"the store did not answer within {self._limit_s:g} s"
            if ids is None:
                raise StoreUnavailable(message) from None
            raise OutcomeUnknown(f"{message}; the write may still happen", ids) from None
        return answer.result()

    def close(self) -> None:
        """Close the store once the calls under way are answered; the thread ends with the last store. Closing twice is
        harmless. What the store raises on the way is raised."""
        refuse_on_an_event_loop()
        with _process.lock:
            self._closed = True
            held, self._held = self._held, None
            if held is None or held.forked:
                return
            held.end()
        try:
            held.closed.result(self._limit_s)
        except TimeoutError:
            log.warning("close_timeout: the store is not closed within %g s; it is left to its end", self._limit_s)
        finally:
            with _process.lock:
                _process.stop_if_idle()

    def __del__(self) -> None:
        """A store that nobody can call any more is closed. This may run anywhere, so it neither waits nor locks."""
        if self._held is not None and not self._held.closing:
            self._held.end()

    def _open(self) -> _Held:
        with _process.lock:
            if self._closed:
                raise StoreUnavailable("this SyncQueue is closed; make a new one")
            if self._held is not None and self._held.forked:
                raise ForkedConnection
            if self._held is None or self._held.closing:
                self._held = _process.hold(self._opener, in_memory=self._in_memory)
            held = self._held
        try:
            error = held.opened.exception(self._limit_s)
        except TimeoutError:
            raise StoreUnavailable(f"the store is not open within {self._limit_s:g} s") from None
        if error is not None:
            with _process.lock:
                _process.stop_if_idle()
            raise _twin(error)
        return held


def refuse_on_an_event_loop() -> None:
    """Raise `ConfigError` in a thread that runs an event loop: whatever it waits for would block the loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(
        "SyncQueue would block the event loop that runs in this thread; "
        "use `async with open_storage(…) as storage` and await its verbs"
    )


class _Held:
    """One store from its opening to its closing, which are steps of one task on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, opener: Opener, among: set[_Held], *, in_memory: bool) -> None:
        self.in_memory = in_memory
        self.opened: Future[None] = Future()
        self.closed: Future[None] = Future()
        self.closing = False
        """No more calls. Set under the lock before the loop is told, so that none comes after."""
        self.forked = False
        """Left open by the parent, in whose process it goes on."""
        self._loop = loop
        self._opener = opener
        self._among = among
        self._enough = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None]
        self._storage: Storage

    def submit(self, work: Work[T], answer: Future[T]) -> bool:
        """Have `work` done on the loop; False if this store takes no more calls."""
        with _process.lock:
            if self.closing:
                return False
            self._loop.call_soon_threadsafe(self._begin, work, answer)
            return True

    def end(self) -> None:
        """Ask for the closing; `closed` tells when it is done."""
        self.closing = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: so is this store
            self._loop.call_soon_threadsafe(self._enough.set)

    # On the loop

    def start(self) -> None:
        self._task = self._loop.create_task(self._keep(), name="forge-sync-store")

    async def _keep(self) -> None:
        fault: Exception | None = None
        try:
            async with self._opener() as self._storage:
                self.opened.set_result(None)
                await self._enough.wait()
                if self._calls:
                    await asyncio.wait(self._calls)
        except Exception as error:
            fault = error
        self.closing = True
        self._among.discard(self)
        if not self.opened.done():
            self.opened.set_exception(fault)
            fault = None
        self.closed.set_exception(fault) if fault else self.closed.set_result(None)

    def _begin(self, work: Work[T], answer: Future[T]) -> None:
        call = self._loop.create_task(self._answer(work, answer), name="forge-sync-call")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _answer(self, work: Work[T], answer: Future[T]) -> None:
        try:
            result = await work(self._storage)
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(result)


class _Process:
    """The loop of this process and what is on it. The lock is held while stores come and go, and throughout a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.forker = 0
        """The thread that forks and holds the lock meanwhile."""
        self.ended = False
        self.held: set[_Held] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def hold(self, opener: Opener, *, in_memory: bool) -> _Held:
        """Begin to open a store, on a new loop if there is none."""
        if self.ended:
            raise StoreUnavailable("the program is at its end; its SyncQueues are closed")
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run, args=(loop,), name="forge-sync", daemon=True)
            thread.start()
            self._loop, self._thread = loop, thread
        held = _Held(self._loop, opener, self.held, in_memory=in_memory)
        self.held.add(held)
        self._loop.call_soon_threadsafe(held.start)
        return held

    def end_all(self, limit_s: float, *, in_memory: bool) -> None:
        """Close the stores, those in memory only if told so, and with the last one the loop."""
        ending = [held for held in list(self.held) if in_memory or not held.in_memory]
        for held in ending:
            held.end()
        if wait([held.closed for held in ending], limit_s).not_done:
            log.warning("close_timeout: a store is not closed within %g s; it is left to its end", limit_s)
        self.stop_if_idle()

    def stop_if_idle(self) -> None:
        """End the loop and its thread if no store is left."""
        if self._loop is not None and self._thread is not None and not self.held:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(JOIN_LIMIT_S)
            self._loop = self._thread = None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    with ThreadPoolExecutor(OPENERS, thread_name_prefix="forge-sync-opener") as openers:
        loop.set_default_executor(openers)
        loop.run_forever()
    loop.close()


def _twin(error: BaseException) -> BaseException:
    """A copy for one of several threads that raise it: each adds its own frames to the traceback."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin.with_traceback(error.__traceback__)


_process = _Process()
_left_behind: Final[list[_Process]] = []
"""What a child found open in its parent's name. Kept, so that nothing of it is ever finalised here."""


def _before_fork() -> None:
    process = _process
    if process.lock.acquire(timeout=FORK_LIMIT_S):
        process.forker = threading.get_ident()
        process.end_all(FORK_LIMIT_S, in_memory=False)


def _after_fork_in_parent() -> None:
    if _process.forker == threading.get_ident():
        _process.forker = 0
        _process.lock.release()


def _after_fork_in_child() -> None:
    global _process
    _left_behind.append(_process)
    for held in _process.held:
        held.forked = held.closing = True
    _process = _Process()


def _at_exit() -> None:
    if _process.lock.acquire(timeout=EXIT_LIMIT_S):
        try:
            _process.ended = True
            _process.end_all(EXIT_LIMIT_S, in_memory=True)
        finally:
            _process.lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
