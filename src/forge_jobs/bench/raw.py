"""The limit: bare `sqlite3` in one thread, prepared tuples, full durability, no queue around it.

Statements are in `forge_tables.sql` (our own tables and indexes) and `generic_tables.sql`.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from forge_jobs.bench.measure import NOOP, PAYLOAD, QUEUE
from forge_jobs.ids import new_ids
from forge_jobs.payload import encode_payload
from forge_jobs.storage.sql.book import parse

Book: TypeAlias = Mapping[str, str]
JobTuple: TypeAlias = tuple[str, str, str, str, int]

FILL_BATCH: Final = 10_000


def load(name: str) -> Book:
    """The statements of one of this package's files."""
    page = files("forge_jobs.bench").joinpath(name)
    return parse(page.read_text(), page.name)


FORGE: Final = load("forge_tables.sql")
GENERIC: Final = load("generic_tables.sql")


def connect(database: Path) -> sqlite3.Connection:
    """A plain connection: write-ahead log, every commit synced, everything else as SQLite has it by default."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def create_generic(connection: sqlite3.Connection) -> None:
    for name in ("create_table", "create_ready", "create_running"):
        connection.execute(GENERIC[name])


def tuples(count: int) -> list[JobTuple]:
    """Jobs ready to be bound to `insert`, ids ascending."""
    payload, now = encode_payload(PAYLOAD), time.time_ns() // 1000
    return [(job_id, QUEUE, NOOP, payload, now) for job_id in new_ids(count)]


def fill(database: Path, count: int, *, insert: str = "insert") -> None:
    """Add `count` jobs of ours and copy the log back, so that whoever comes next begins with a clean one."""
    connection = connect(database)
    try:
        for start in range(0, count, FILL_BATCH):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(FORGE[insert], tuples(min(FILL_BATCH, count - start)))
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def insert_rate(connection: sqlite3.Connection, book: Book, jobs: list[JobTuple], batch: int) -> float:
    """Jobs a second, added in transactions of `batch`. A lone statement is a transaction by itself."""
    began = time.perf_counter()
    if batch == 1:
        for job in jobs:
            connection.execute(book["insert"], job)
    else:
        for some in _batches(jobs, batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(book["insert"], some)
            connection.execute("COMMIT")
    return len(jobs) / (time.perf_counter() - began)


def drain_rate(connection: sqlite3.Connection, book: Book, count: int, batch: int) -> float:
    """Jobs a second, claimed and finalized in turn, in transactions of `batch`.

    Every other batch is finalized by one UPDATE over a JSON list, the rest by one UPDATE a row; the faster counts.
    """
    claim_s = 0.0
    finalize_s, finalized = [0.0, 0.0], [0, 0]
    done = turn = 0
    while done < count:
        began = time.perf_counter()
        now = time.time_ns() // 1000
        rows = connection.execute(book["claim"], (now, QUEUE, NOOP, min(batch, count - done))).fetchall()
        claimed = time.perf_counter()
        if turn == 0:
            connection.execute(book["finalize_batch"], (now, json.dumps([row[0] for row in rows])))
        else:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(book["finalize"], [(now, row[0]) for row in rows])
            connection.execute("COMMIT")
        claim_s += claimed - began
        finalize_s[turn] += time.perf_counter() - claimed
        finalized[turn] += len(rows)
        done += len(rows)
        turn = 1 - turn
    fastest = min(spent / jobs for spent, jobs in zip(finalize_s, finalized, strict=True) if jobs)
    return 1 / (claim_s / count + fastest)


def _batches(jobs: list[JobTuple], size: int) -> Iterator[list[JobTuple]]:
    rest = iter(jobs)
    while some := list(islice(rest, size)):
        yield some
