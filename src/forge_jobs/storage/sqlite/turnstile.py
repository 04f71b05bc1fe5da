"""Writers of one file take turns, in order, across processes.

SQLite's own lock has no queue: under load a waiter polls with growing sleeps and may starve for seconds. Two
locks beside the file give it one: take the gate, take the turn, drop the gate, write, drop the turn. Who
waits for the turn holds the gate, so whoever just wrote stands behind him. flock(2) locks belong to the open
file, so threads of one process take turns as well, and a killed process leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Turnstile:
    """One writer's place at the turnstile of a file. Not shared between threads."""

    def __init__(self, database: Path | None) -> None:
        """With no file (an in-memory database) there is nobody to wait for."""
        self._gate = self._turn = -1
        if database is not None:
            self._gate = _open(database.with_name(database.name + "-gate"))
            self._turn = _open(database.with_name(database.name + "-turn"))

    def enter(self) -> None:
        """Wait for the turn. Bounded by the writers ahead; a writer frozen inside its transaction blocks all."""
        if self._gate >= 0:
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            try:
                fcntl.flock(self._turn, fcntl.LOCK_EX)
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Give the turn to the next."""
        if self._turn >= 0:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        for fd in (self._gate, self._turn):
            if fd >= 0:
                os.close(fd)
        self._gate = self._turn = -1


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
