"""Readings that cost too much to be taken for everybody who asks, such as counts of a million waiting jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

QUICK_S: Final = 0.02
"""What is read within this time is read anew for everybody."""
SHARE: Final = 0.05
"""How much of the time is spent reading, at most, when it takes longer."""
TOO_OLD_S: Final = 10.0


class Recent(Generic[T]):
    """Results of `read`: of this moment where reading is quick. What took longer, t seconds, is read again after
    t / 5 %, so that a reading of 200 ms is at most 4 s old if somebody asks all the time.

    Who asks in between gets what is there at once, while one new reading is under way for all of them; only what is
    much older is waited for. A fault is raised to whoever waits, and to the next caller if nobody does.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], *, now: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._now = now
        self._last: tuple[T] | None = None
        self._began = self._ended = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """The newest result there is, waiting for one if there is none.

        Raises:
            whatever `read` raises.
        """
        if self._last is not None and self._cost_s < QUICK_S:
            await self._take()
            return self._last[0]
        age = self._now() - self._began
        if self._reading is not None and self._reading.done():
            reading, self._reading = self._reading, None
            reading.result()
        if self._last is None or age > self._cost_s / SHARE + TOO_OLD_S:
            await self._wait_for(self._start())
        elif age > self._cost_s / SHARE:
            self._start()
        assert self._last is not None
        return self._last[0]

    async def _wait_for(self, reading: asyncio.Task[None]) -> None:
        try:
            await asyncio.shield(reading)
        finally:
            if reading.done() and self._reading is reading:
                self._reading = None  # its fault was told

    @property
    def _cost_s(self) -> float:
        return self._ended - self._began

    def _start(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._take())
        return self._reading

    async def _take(self) -> None:
        began = self._now()
        result = await self._read()
        if began >= self._began:  # one that began later may have come first
            self._last, self._began, self._ended = (result,), began, self._now()
