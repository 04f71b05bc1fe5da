"""Copying the write-ahead log back, at a moment when nobody can commit.

SQLite 3.7.0 to 3.51.2 can corrupt a database when a commit restarts the log just as a checkpoint begins (fixed
in 3.51.3, 3.50.7 and 3.44.6). Every connection of ours has automatic checkpoints off, and this routine holds the
write lock on one connection while another runs a passive checkpoint, so no commit can come between.
"""

from __future__ import annotations

import logging
import sqlite3
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

    pages: float = 0.0
    """Guess of the pages written since the last checkpoint."""
    size_pages: int = 0
    """Pages in the log at the last checkpoint."""
    warned: bool = False

    def wrote(self, rows: int) -> None:
        self.pages += PAGES_PER_COMMIT + rows * PAGES_PER_ROW

    @property
    def is_due(self) -> bool:
        return self.pages >= PAGES


def checkpoint(holder: sqlite3.Connection, worker: sqlite3.Connection, log: Log) -> None:
    """Run a passive checkpoint on `worker` while `holder` keeps every writer out. The caller holds the turn."""
    holder.execute("BEGIN IMMEDIATE")
    try:
        _busy, size, copied = worker.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    finally:
        holder.execute("ROLLBACK")
    log.size_pages = max(size, 0)
    log.pages = 0.0
    if size - copied > WARN_PAGES and not log.warned:
        logger.warning("wal_large pages=%d: a reader of another program holds an old snapshot open", size)
    log.warned = size - copied > WARN_PAGES
