"""Clocks for tests: one that moves only when told, and one that real processes share."""

from __future__ import annotations

import mmap
import os
import struct
from datetime import timedelta
from pathlib import Path
from typing import Final

from forge_jobs.clock import ManualClock, SystemClock, duration_us

__all__ = ["ManualClock", "SharedClock"]

_AHEAD: Final = struct.Struct("=q")


class SharedClock(SystemClock):
    """The host's clocks, as far ahead as a file says: every process that has the file sees time move at once.

    For worker processes in tests (`Cluster.advance`), which cannot share an object. Time goes on by itself as well.
    Moving it is like waking a host from sleep: what was due is due, and who has not beaten since is silent.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path: Final = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < _AHEAD.size:
                os.write(descriptor, bytes(_AHEAD.size))
            self._shared = mmap.mmap(descriptor, _AHEAD.size)
        finally:
            os.close(descriptor)

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us

    def elapsed_us(self) -> int:
        return super().elapsed_us() + self._ahead_us

    def advance(self, duration: timedelta | float | str) -> None:
        """Let time pass for every process: seconds, a timedelta, or text such as `2h`."""
        step = duration_us(duration)
        if step < 0:
            raise ValueError(f"time cannot pass backwards: {duration!r}")
        _AHEAD.pack_into(self._shared, 0, self._ahead_us + step)

    @property
    def _ahead_us(self) -> int:
        ahead: int = _AHEAD.unpack_from(self._shared, 0)[0]
        return ahead
