"""Readings that cost too much to be taken for everybody who asks, such as counts of a million waiting jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

FEW: Final = 20_000
"""So many jobs are counted anew for everybody: that takes a few milliseconds."""
SHARE: Final = 0.05
"""How much of the time is spent reading, at most, when there is more to read."""
TOO_OLD_S: Final = 10.0
PAUSE_S: Final = 2.0
"""Between two readings that nobody waits for, at least."""
INTEREST_S: Final = 150.0
"""A reading is renewed for so long after somebody asked: longer than the pause between two scrapes of metrics."""


class Recent(Generic[T]):
    """Results of `read`: of this moment while the last one was `cheap`. Others, which took t seconds, are read again
    after t / 5 %, so that a reading of 200 ms is at most 4 s old.

    Who asks gets what is there at once, while one reading is under way for all of them; only what is much older is
    waited for. It is kept fresh beside, until nobody has asked for 150 s. A fault is raised to whoever waits, and to
    the next caller if nobody does.

    What is cheap is told by the result, not by the time it took: on a busy machine a test must see what it wrote.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[T]],
        *,
        cheap: Callable[[T], bool],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._read = read
        self._cheap = cheap
        self._now = now
        self._sleep = sleep
        self._last: tuple[T] | None = None
        self._began = self._ended = self._asked = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """The newest result there is, waiting for one if there is none.

        Raises:
            whatever `read` raises.
        """
        if self._last is not None and self._cheap(self._last[0]):
            await self._take()
            return self._last[0]
        self._asked = self._now()
        if self._reading is not None and self._reading.done():
            reading, self._reading = self._reading, None
            reading.result()
        age = self._asked - self._began
        if self._last is None or age > self._patience_s + TOO_OLD_S:
            await self._wait_for(self._start())
        elif age > self._patience_s:
            self._start()
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        assert self._last is not None
        return self._last[0]

    async def close(self) -> None:
        """End what is under way; nothing may be asked any more."""
        tasks = [task for task in (self._keeper, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _patience_s(self) -> float:
        return (self._ended - self._began) / SHARE

    async def _wait_for(self, reading: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(reading)
        finally:
            if reading.done() and self._reading is reading:
                self._reading = None  # its fault was told

    async def _keep(self) -> None:
        """Read again and again, while somebody asks and there is much to read."""
        while self._last is not None and not self._cheap(self._last[0]):
            await self._sleep(max(self._patience_s, PAUSE_S))
            if self._now() - self._asked > INTEREST_S:
                return
            await asyncio.wait([self._start()])

    def _start(self) -> asyncio.Task[None]:
        if self._reading is not None and self._reading.done():
            self._reading.exception()  # nobody asked since: the next reading tells whether it is over
            self._reading = None
        if self._reading is None:
            self._reading = asyncio.create_task(self._take())
        return self._reading

    async def _take(self) -> None:
        began = self._now()
        result = await self._read()
        if began >= self._began:  # one that began later may have come first
            self._last, self._began, self._ended = (result,), began, self._now()
