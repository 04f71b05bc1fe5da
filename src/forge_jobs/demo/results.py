"""The demo user's own table, in a database of its own, written by the handlers with the standard library.

A job may run more than once, its result counts once: the job id is the key, and a write carries the fence of its run,
so that a late run never overwrites the result of a newer one. `writes` tells how often it was tried.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BUSY_S: Final = 10.0
SCHEMA: Final = """
CREATE TABLE results (
    job_id  TEXT PRIMARY KEY,
    kind    TEXT NOT NULL,
    item    TEXT NOT NULL,
    found   TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    fence   INTEGER NOT NULL,
    at      TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    writes  INTEGER NOT NULL DEFAULT 1
)
"""
STORE: Final = """
INSERT INTO results (job_id, kind, item, found, attempt, fence) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (job_id) DO UPDATE SET found = excluded.found, attempt = excluded.attempt, fence = excluded.fence,
    at = excluded.at, writes = writes + 1
WHERE excluded.fence > results.fence
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row. `item` is a file's path or a module's name, `found` what the job found out about it."""

    job_id: str
    kind: str
    item: str
    found: dict[str, Any]
    attempt: int
    fence: int
    writes: int = 1


def create(database: Path) -> None:
    """Make the database with its table.

    It keeps SQLite's rollback journal: a few hundred short writes by several processes need no more.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(SCHEMA)


def store(database: Path, result: Result) -> None:
    """Keep a result, unless a newer run of its job was faster. Blocking."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection, connection:
        found = json.dumps(result.found)
        connection.execute(STORE, (result.job_id, result.kind, result.item, found, result.attempt, result.fence))


def read(database: Path) -> tuple[Result, ...]:
    """Every row."""
    with closing(sqlite3.connect(database, timeout=BUSY_S)) as connection:
        rows = connection.execute("SELECT job_id, kind, item, found, attempt, fence, writes FROM results").fetchall()
    return tuple(
        Result(job_id=r[0], kind=r[1], item=r[2], found=json.loads(r[3]), attempt=r[4], fence=r[5], writes=r[6])
        for r in rows
    )
