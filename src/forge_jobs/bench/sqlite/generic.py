"""A plain table of 16 columns on SQLite, as one would write it first: for orientation beside ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from forge_jobs.bench.measure import BATCH, Sample, Samples
from forge_jobs.bench.raw import tuples
from forge_jobs.bench.scratch import Scratch
from forge_jobs.bench.sqlite.raw import FILL_BATCH, Row, connect, drain_rate, insert_rate
from forge_jobs.storage.sql.book import parse

_PAGE: Final = files("forge_jobs.bench.sqlite").joinpath("generic_tables.sql")
GENERIC: Final = parse(_PAGE.read_text(), _PAGE.name)


def raw_drain_16col(scratch: Scratch) -> Samples:
    """Bare SQL that claims and finalizes."""
    jobs = scratch.sizes.jobs
    with _empty_table(scratch.folder) as connection:
        insert_rate(connection, GENERIC, _rows(jobs), FILL_BATCH)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return {"raw_drain_16col": Sample(drain_rate(connection, GENERIC, jobs, BATCH))}


def raw_enqueue_16col(scratch: Scratch) -> Samples:
    """Bare SQL that adds."""
    with _empty_table(scratch.folder) as connection:
        return {"raw_enqueue_16col": Sample(insert_rate(connection, GENERIC, _rows(scratch.sizes.jobs), BATCH))}


def _rows(count: int) -> list[Row]:
    """Jobs as the statements bind them, without ids: the table counts them itself."""
    return [(*job[1:], job[-1]) for job in tuples(count)]


@contextmanager
def _empty_table(parent: Path) -> Iterator[sqlite3.Connection]:
    """The table in a file of its own, which is gone after the block."""
    with TemporaryDirectory(prefix="generic-", dir=parent) as folder:
        connection = connect(f"{folder}/jobs.db")
        try:
            for name in ("create_table", "create_ready", "create_running"):
                connection.execute(GENERIC[name])
            yield connection
        finally:
            connection.close()
