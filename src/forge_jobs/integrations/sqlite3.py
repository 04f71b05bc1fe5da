"""Enqueueing in a transaction of the standard library's `sqlite3`, on the file that the workers use.

with sqlite3.connect("jobs.db") as connection:
    connection.execute("INSERT INTO orders (id) VALUES (?)", (7,))
    enqueue(connection, EnqueueRequest("receipt_send", {"order": 7}))
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from forge_jobs.integrations import _sqlite
from forge_jobs.integrations._enqueue import ROUTER, Options
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.sql.at_once import at_once
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest


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
    options = Options(router=router, autocommit_ok=autocommit_ok)
    return at_once(_sqlite.add(connection, requests, options)).outcomes
