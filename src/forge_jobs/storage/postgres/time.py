"""Store time in a process: the server's clock, known from every transaction's first answer."""

from __future__ import annotations

import threading
import time
from typing import Final

from forge_jobs.clock import SystemClock

KEEP_S: Final = 30.0
"""A reading is believed for this long before a slower one may take its place."""


class StoreClock(SystemClock):
    """`now_us` is the server's time as well as it is known here: the distance between its clock and our monotonic
    one, taken from the reading with the shortest round trip of the last while. This host's own wall clock is never
    asked, so it may be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self._offset_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        """Until the server was asked."""
        self._round_trip_us = float("inf")
        self._read_at = -KEEP_S
        self._lock = threading.Lock()

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000 + self._offset_us

    @property
    def ahead_of_host_ms(self) -> float:
        """How far the server's clock is ahead of this host's."""
        return (self.now_us() - time.time_ns() // 1000) / 1000

    def sample(self, sent_ns: int, received_ns: int, server_us: int) -> None:
        """The server said `server_us` between these two instants of the monotonic clock."""
        round_trip_us = (received_ns - sent_ns) / 1000
        with self._lock:
            now = received_ns / 1e9
            if round_trip_us <= self._round_trip_us or now - self._read_at > KEEP_S:
                self._round_trip_us, self._read_at = round_trip_us, now
                self._offset_us = server_us - (sent_ns + received_ns) // 2000
