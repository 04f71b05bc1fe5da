"""One wheel for all deadlines of a process: a heap and one timer, instead of a timer per job."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

SWEEP_ABOVE: Final = 64
"""A smaller heap is never worth a sweep."""


class Deadline:
    """One entry of the wheel. Cancelled, it holds on to nothing."""

    __slots__ = ("_wheel", "callback", "key")

    def __init__(self, wheel: Deadlines, when: float, order: int, callback: Callable[[], None]) -> None:
        self._wheel = wheel
        self.key = (when, order)
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._wheel.cancelled()

    def __lt__(self, other: Deadline) -> bool:
        return self.key < other.key


class Deadlines:
    """Calls back at given times of the event loop's clock."""

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._dead = 0
        self._order = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def after(self, seconds: float, callback: Callable[[], None]) -> Deadline:
        """Call `callback` in `seconds`, unless the entry is cancelled before."""
        entry = Deadline(self, self._loop.time() + seconds, next(self._order), callback)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._arm()
        return entry

    def cancelled(self) -> None:
        """Entries that came to nothing are swept out when they are the larger part."""
        self._dead += 1
        if len(self._heap) > SWEEP_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def close(self) -> None:
        self._heap.clear()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = self._loop.call_at(self._heap[0].key[0], self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and self._heap[0].key[0] <= now:
            entry = heapq.heappop(self._heap)
            callback, entry.callback = entry.callback, None
            if callback is None:
                self._dead -= 1
            else:
                callback()
        self._arm()
