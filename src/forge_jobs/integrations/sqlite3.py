"""Enqueueing in a transaction of the standard library's `sqlite3`, on the file that the workers use.

with sqlite3.connect("jobs.db") as connection:
    connection.execute("INSERT INTO orders (id) VALUES (?)", (7,))
    enqueue(connection, EnqueueRequest("receipt_send", {"order": 7}))
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from forge_jobs.clock import SystemClock
from forge_jobs.integrations import _enqueue
from forge_jobs.integrations._enqueue import ROUTER
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.sql import claim
from forge_jobs.storage.sql.book import load_book
from forge_jobs.storage.sqlite.checkpoint import is_safe_version
from forge_jobs.storage.sqlite.connection import SqliteTx
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

log = logging.getLogger("forge_jobs.integrations")

_clock: Final = SystemClock()
_warned: Final[list[bool]] = []
"""Whether this process has been warned."""


def enqueue(
    connection: sqlite3.Connection,
    request: EnqueueRequest,
    *,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome:
    """Add one job with the commit of the connection's open transaction.

    Raises:
        NoTransaction: none is open, and `autocommit_ok` is not set.
        SchemaMismatch: the file has no forge-jobs schema.
        InvalidInput, DedupeConflict, IdReused, QueueFull: as of every enqueue; your transaction is as it was.
    """
    return enqueue_bulk(connection, [request], router=router, autocommit_ok=autocommit_ok)[0]


def enqueue_bulk(
    connection: sqlite3.Connection,
    requests: Sequence[EnqueueRequest],
    *,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]:
    """Add up to 10 000 jobs with the commit; outcomes in request order. Raises as `enqueue` does."""
    if not connection.in_transaction and not autocommit_ok:
        raise _enqueue.no_transaction("begin one (a write does, unless isolation_level is None)")
    factory, connection.row_factory = connection.row_factory, None
    try:
        _look(connection)
        return _enqueue.add(SqliteTx(connection, _book(), _clock), requests, router)
    finally:
        connection.row_factory = factory


def _look(connection: sqlite3.Connection) -> None:
    """Is our schema there, and does the connection checkpoint where that is a risk? Looked at every time, for some
    microseconds: an `sqlite3.Connection` cannot be remembered without being kept alive."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'forge_schema'").fetchone()
    if found is None:
        raise _enqueue.no_schema("this SQLite file")
    if is_safe_version(sqlite3.sqlite_version_info) or _warned:
        return
    if connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0]:
        _warned.append(True)
        log.warning(
            "checkpoint_risk: SQLite %s can corrupt a file that two connections checkpoint; on this connection say "
            "PRAGMA wal_autocheckpoint=0",
            sqlite3.sqlite_version,
        )


@cache
def _book() -> dict[str, str]:
    return dict(load_book(files("forge_jobs.storage.sqlite").joinpath("overlay.sql"), claim.PART))
