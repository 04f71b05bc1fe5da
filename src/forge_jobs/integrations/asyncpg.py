"""Enqueueing in a transaction of asyncpg, in the database that the workers use.

async with connection.transaction():
    await connection.execute("INSERT INTO orders (id) VALUES ($1)", 7)
    await enqueue(connection, EnqueueRequest("receipt_send", {"order": 7}))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import asyncpg
import asyncpg.pool

from forge_jobs.integrations import _postgres
from forge_jobs.integrations._enqueue import ROUTER, SCHEMA, Added, Options
from forge_jobs.integrations._postgres import Statement
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.sql.driver import Row
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

AnyConnection: TypeAlias = "asyncpg.Connection | asyncpg.pool.PoolConnectionProxy"


async def enqueue(
    connection: AnyConnection,
    request: EnqueueRequest,
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome:
    """Add one job with the commit of the connection's open transaction. If it is cancelled, roll back.

    A job with a dedupe key waits for another open transaction on the same key, for at most your `lock_timeout`.

    Raises:
        NoTransaction: none is open, and `autocommit_ok` is not set.
        SchemaMismatch: the database has no forge-jobs schema of this name.
        InvalidInput, DedupeConflict, IdReused, QueueFull: as of every enqueue; your transaction is as it was.
    """
    options = Options(schema=schema, router=router, autocommit_ok=autocommit_ok)
    return (await add(connection, [request], options)).outcomes[0]


async def enqueue_bulk(
    connection: AnyConnection,
    requests: Sequence[EnqueueRequest],
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]:
    """Add up to 10 000 jobs with the commit; outcomes in request order. Raises as `enqueue` does."""
    return (
        await add(connection, requests, Options(schema=schema, router=router, autocommit_ok=autocommit_ok))
    ).outcomes


async def add(connection: AnyConnection, requests: Sequence[EnqueueRequest], options: Options) -> Added:
    """Add the jobs."""
    return await _postgres.add(AsyncpgDriver(connection), requests, options)


class AsyncpgDriver:
    """Implements `Driver`. Savepoints are plain commands: asyncpg's own are refused in a transaction that was begun by
    one."""

    advice = "open one with `async with connection.transaction()`"

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    @property
    def alone(self) -> bool:
        return not self._connection.is_in_transaction()

    async def fetch(self, statement: Statement, params: Mapping[str, Any]) -> list[Row]:
        records = await self._connection.fetch(statement.numbered, *statement.values(params))
        return [tuple(record) for record in records]

    async def count(self, statement: Statement, params: Mapping[str, Any]) -> int:
        tag: str = await self._connection.execute(statement.numbered, *statement.values(params))
        return int(tag.rpartition(" ")[2])

    async def command(self, sql: str) -> object:
        return await self._connection.execute(sql)
