"""How often an address failed to name a token."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from forge_jobs.api.problem import Problem

FAILURES: Final = 5
WINDOW_S: Final = 60.0
ADDRESSES: Final = 10_000
"""Remembered at a time; the ones that failed longest ago are forgotten."""


class Attempts:
    """Failures of the last minute, by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Refuse an address that failed too often.

        Raises:
            Problem: it has to wait.
        """
        times = self._recent(address)
        if len(times) >= FAILURES:
            wait = max(int(times[0] + WINDOW_S - self._clock()) + 1, 1)
            raise Problem("rate_limited", f"{FAILURES} failed tries within a minute from this address",
                          headers={"Retry-After": str(wait)})  # fmt: skip

    def failed(self, address: str) -> None:
        times = self._recent(address)
        times.append(self._clock())
        self._failed[address] = times
        self._failed.move_to_end(address)
        while len(self._failed) > ADDRESSES:
            self._failed.popitem(last=False)

    def _recent(self, address: str) -> deque[float]:
        times = self._failed.get(address) or deque(maxlen=FAILURES)
        since = self._clock() - WINDOW_S
        while times and times[0] <= since:
            times.popleft()
        return times
