"""Bare `sqlite3` in one thread, prepared tuples, full durability."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any, Final, TypeAlias

from forge_jobs.bench.measure import NOOP, QUEUE
from forge_jobs.bench.raw import Book, batches, load, tuples

FILL_BATCH: Final = 10_000
FORGE: Final = load("forge_jobs.bench.sqlite")
Row: TypeAlias = tuple[Any, ...]


def connect(database: str) -> sqlite3.Connection:
    """A plain connection: write-ahead log, every commit synced, everything else as SQLite has it by default."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


class SqliteRaw:
    """Implements `Raw`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def fill(self, count: int, *, future: bool = False) -> None:
        """The log is copied back, so that whoever comes next begins with a clean one."""
        for start in range(0, count, FILL_BATCH):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                FORGE["insert_future" if future else "insert"], _rows(min(FILL_BATCH, count - start))
            )
            self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def insert_rate(self, count: int, batch: int) -> float:
        return insert_rate(self._connection, FORGE, _rows(count), batch)

    def drain_rate(self, count: int, batch: int) -> float:
        self.fill(count)
        return drain_rate(self._connection, FORGE, count, batch)

    def done_span(self) -> tuple[int, int, int]:
        done, first_us, last_us = self._connection.execute(FORGE["done_span"]).fetchone()
        return done, first_us or 0, last_us or 0

    def workers(self) -> int:
        count: int = self._connection.execute(FORGE["registered"]).fetchone()[0]
        return count


def _rows(count: int) -> list[Row]:
    """Jobs as the statements bind them: in order, as Python 3.14 has it, so an instant that is used twice is there
    twice."""
    return [(*job, job[-1]) for job in tuples(count)]


def insert_rate(connection: sqlite3.Connection, book: Book, jobs: list[Row], batch: int) -> float:
    """Jobs a second, added in transactions of `batch`. A lone statement is a transaction by itself."""
    began = time.perf_counter()
    if batch == 1:
        for job in jobs:
            connection.execute(book["insert"], job)
    else:
        for some in batches(jobs, batch):
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
        rows = connection.execute(book["claim"], (now, now, QUEUE, NOOP, now, min(batch, count - done))).fetchall()
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
