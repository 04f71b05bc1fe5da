"""Copying the write-ahead log back, at a moment when nobody can commit.

SQLite 3.7.0 to 3.51.2 can corrupt a database when a commit restarts the log just as a checkpoint begins (fixed
in 3.51.3, 3.50.7 and 3.44.6). Every connection of ours has automatic checkpoints off, and this routine holds the
write lock on one connection while another runs a passive checkpoint, so no commit can come between.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from dataclasses import dataclass
from typing import Final

PAGES: Final = 1_000
"""Pages of log after which a checkpoint is due; about 4 MiB."""
PAGES_PER_ROW: Final = 0.35
"""Pages a changed row adds to the log, for guessing between checkpoints; measured on the drain benchmark."""
PAGES_PER_COMMIT: Final = 4
WARN_PAGES: Final = 16_384
"""A log that cannot be copied back grows; at 64 MiB somebody should know."""

logger = logging.getLogger("forge_jobs.sqlite")


def is_safe_version(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the fix of the log-restart defect."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


@dataclass(slots=True)
class Log:
    """What is known of the log of one file."""

    guess: float = 0.0
    """Pages written since the last checkpoint, were the work of the usual kind."""
    scale: float = 0.5
    """How many pages the work of late really made of a guessed one: a bulk touches far fewer than a drain."""
    size_pages: int = 0
    """Pages in the log at the last checkpoint."""
    warned: bool = False
    copied_at: float | None = None
    """When this process last did so, on the monotonic clock."""

    def wrote(self, rows: int) -> None:
        self.guess += PAGES_PER_COMMIT + rows * PAGES_PER_ROW

    def copied(self, size_pages: int) -> None:
        """A checkpoint found this many pages in the log; learn from it. The log's true length cannot be looked up:
        opening the file ourselves and closing it would drop SQLite's own locks on it."""
        if self.guess >= PAGES / 4:
            measured = min(max(size_pages / self.guess, 0.05), 4.0)
            self.scale = (self.scale + measured) / 2
        self.size_pages = max(size_pages, 0)
        self.copied_at = time.monotonic()
        self.guess = 0.0

    @property
    def is_due(self) -> bool:
        return self.guess * self.scale >= PAGES


def checkpoint(holder: sqlite3.Connection, worker: sqlite3.Connection, log: Log) -> None:
    """Run a passive checkpoint on `worker` while `holder` keeps every writer out. The caller holds the turn."""
    holder.execute("BEGIN IMMEDIATE")
    try:
        _busy, size, copied = worker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    finally:
        holder.execute("ROLLBACK")
    log.copied(size)
    if size - copied > WARN_PAGES and not log.warned:
        logger.warning("wal_large pages=%d: a reader of another program holds an old snapshot open", size)
    log.warned = size - copied > WARN_PAGES
