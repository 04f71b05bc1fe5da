"""The children of one worker pool in one runtime: who is idle, who waits for one, and who is started anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from forge_jobs.runtime.children import ChildError, Children, environment
from forge_jobs.runtime.gauges import rss_mib
from forge_jobs.runtime.handlers.pooled_child import PooledChild

if TYPE_CHECKING:
    from forge_jobs.runtime.cancel import CancelReason, CancelToken
    from forge_jobs.runtime.handlers.worker_pool import WorkerPool

log = logging.getLogger("forge_jobs.worker_pool")

EARLY_S: Final = 1.0
"""A child that dies younger than this and without having answered is started anew after a while."""
RESPAWN_S: Final = (0.1, 30.0)


class ChildPool:
    """`size` places, each with a child that is started again when it ends. Jobs get the child that is idle longest."""

    def __init__(self, settings: WorkerPool, children: Children) -> None:
        self.kind = settings.kind
        self.require_id = settings.require_id
        self._settings = settings
        self._children = children
        self._idle: deque[PooledChild] = deque()
        self._waiting: deque[asyncio.Future[PooledChild]] = deque()
        self._alive: set[PooledChild] = set()
        self._stopping = asyncio.Event()
        self._places: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all children.

        Raises:
            ChildError: one of them could not be started; none is left.
        """
        starting = (self._start_child() for _ in range(self.size))
        started = await asyncio.gather(*starting, return_exceptions=True)
        for error in started:
            if isinstance(error, BaseException):
                for child in self._alive:
                    child.end()
                self._fail_waiting(error)
                raise error
        children = [child for child in started if isinstance(child, PooledChild)]
        self._places = [asyncio.create_task(self._keep(child), name=f"forge-pool-{self.kind}") for child in children]

    @property
    def size(self) -> int:
        return self._settings.size

    async def take(self, cancel: CancelToken) -> PooledChild:
        """An idle child, after those who asked before.

        Raises:
            ChildError: there is none, and none can be started.
            asyncio.CancelledError: the job is to stop; nothing of it was begun.
        """
        while True:
            cancel.raise_if_cancelled()
            while self._idle:
                child = self._idle.popleft()
                if child.ready:
                    return child
            child = await self._wait(cancel)
            if child.ready:
                return child

    async def _wait(self, cancel: CancelToken) -> PooledChild:
        waiter: asyncio.Future[PooledChild] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)

        def give_up(reason: CancelReason) -> None:
            waiter.cancel(reason.value)

        cancel.on_fire(give_up)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.returned(waiter.result())  # it was given a child in the same moment
            raise

    def returned(self, child: PooledChild) -> None:
        """A child is free for the next job, unless it has had its share."""
        if self._stopping.is_set() or self._is_worn(child):
            child.close()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(child)
                return
        self._idle.append(child)

    def ended(self, child: PooledChild) -> None:
        """A child is over."""
        self._alive.discard(child)
        if child in self._idle:
            self._idle.remove(child)

    async def stop(self) -> None:
        """Let every child exit once it has no job: its input is closed; it is ended 5 s later. Waits for all."""
        self._stopping.set()
        while self._idle:
            self._idle.popleft().close()
        for fault in await asyncio.gather(*self._places, return_exceptions=True):
            if isinstance(fault, Exception):
                log.error("pool_fault kind=%s", self.kind, exc_info=fault)

    async def _keep(self, child: PooledChild | None) -> None:
        """One place: start a child, wait for its end, again and again."""
        early = 0
        while not self._stopping.is_set():
            if child is None:
                try:
                    child = await self._start_child()
                except ChildError as error:
                    log.error("child_not_started kind=%s error=%s", self.kind, error)
                    if not self._alive:
                        self._fail_waiting(error)
                    early += 1
                    await self._back_off(early)
                    continue
            self.returned(child)
            await child.over.wait()
            young = time.monotonic() - child.started_at < EARLY_S
            early = early + 1 if child.faulty and young and not child.jobs else 0
            child = None
            if early:
                await self._back_off(early)
        if child is not None:
            child.close()
            await child.over.wait()

    async def _start_child(self) -> PooledChild:
        settings = self._settings
        child = await self._children.start(
            settings.argv,
            env=environment(inherit=settings.inherit, given=settings.env),
            cwd=settings.cwd,
            stdin=True,
        )
        pooled = PooledChild(self, child)
        self._alive.add(pooled)
        return pooled

    async def _back_off(self, early: int) -> None:
        try:
            async with asyncio.timeout(min(RESPAWN_S[0] * 2 ** min(early - 1, 20), RESPAWN_S[1])):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _fail_waiting(self, error: BaseException) -> None:
        """Jobs that wait for a child hear that there will be none."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(ChildError(str(error)))

    def _is_worn(self, child: PooledChild) -> bool:
        most, most_mib = self._settings.max_jobs_per_child, self._settings.max_rss_mib
        if most is not None and child.jobs >= most:
            return True
        return most_mib is not None and child.jobs > 0 and rss_mib(child.child.pid) > most_mib
