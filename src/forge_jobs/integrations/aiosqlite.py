"""Enqueueing in a transaction of `aiosqlite`, on the file that the workers use.

async with aiosqlite.connect("jobs.db") as connection:
    await connection.execute("INSERT INTO orders (id) VALUES (?)", (7,))
    await enqueue(connection, EnqueueRequest("receipt_send", {"order": 7}))
    await connection.commit()
"""

from __future__ import annotations

from collections.abc import Sequence

import aiosqlite

from forge_jobs.integrations import _sqlite
from forge_jobs.integrations._enqueue import ROUTER, Options
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest


async def enqueue(
    connection: aiosqlite.Connection,
    request: EnqueueRequest,
    *,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome:
    """Add one job with the commit of the connection's open transaction. If it is cancelled, roll back.

    Raises:
        NoTransaction: none is open, and `autocommit_ok` is not set.
        SchemaMismatch: the file has no forge-jobs schema.
        InvalidInput, DedupeConflict, IdReused, QueueFull: as of every enqueue; your transaction is as it was.
    """
    return (await enqueue_bulk(connection, [request], router=router, autocommit_ok=autocommit_ok))[0]


async def enqueue_bulk(
    connection: aiosqlite.Connection,
    requests: Sequence[EnqueueRequest],
    *,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]:
    """Add up to 10 000 jobs with the commit; outcomes in request order. Raises as `enqueue` does."""
    options = Options(router=router, autocommit_ok=autocommit_ok)
    return (await _sqlite.add(connection, requests, options)).outcomes
