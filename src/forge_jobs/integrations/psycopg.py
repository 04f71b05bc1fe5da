"""Enqueueing in a transaction of psycopg 3, in the database that the workers use.

with psycopg.connect(url) as connection:
    connection.execute("INSERT INTO orders (id) VALUES (%s)", (7,))
    enqueue(connection, EnqueueRequest("receipt_send", {"order": 7}))

On an `AsyncConnection` both functions are awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeAlias, overload

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from forge_jobs.integrations import _postgres
from forge_jobs.integrations._enqueue import ROUTER, SCHEMA, Added, Options, all_of, one, settled
from forge_jobs.integrations._postgres import Statement
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.sql.at_once import at_once
from forge_jobs.storage.sql.driver import Row
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

AnyConnection: TypeAlias = Connection[Any] | AsyncConnection[Any]


@overload
def enqueue(
    connection: Connection[Any],
    request: EnqueueRequest,
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome: ...
@overload
def enqueue(
    connection: AsyncConnection[Any],
    request: EnqueueRequest,
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> Awaitable[EnqueueOutcome]: ...
def enqueue(
    connection: AnyConnection,
    request: EnqueueRequest,
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome | Awaitable[EnqueueOutcome]:
    """Add one job with the commit of the connection's open transaction; psycopg opens one with the first statement,
    unless the connection is in autocommit mode. Awaited on an `AsyncConnection`; if it is cancelled there, roll back.

    A job with a dedupe key waits for another open transaction on the same key, for at most your `lock_timeout`.

    Raises:
        NoTransaction: the connection is in autocommit mode, none is open, and `autocommit_ok` is not set.
        SchemaMismatch: the database has no forge-jobs schema of this name.
        InvalidInput, DedupeConflict, IdReused, QueueFull: as of every enqueue; your transaction is as it was.
    """
    work = one(add(connection, [request], Options(schema=schema, router=router, autocommit_ok=autocommit_ok)))
    return work if isinstance(connection, AsyncConnection) else at_once(work)


@overload
def enqueue_bulk(
    connection: Connection[Any],
    requests: Sequence[EnqueueRequest],
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]: ...
@overload
def enqueue_bulk(
    connection: AsyncConnection[Any],
    requests: Sequence[EnqueueRequest],
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> Awaitable[list[EnqueueOutcome]]: ...
def enqueue_bulk(
    connection: AnyConnection,
    requests: Sequence[EnqueueRequest],
    *,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome] | Awaitable[list[EnqueueOutcome]]:
    """Add up to 10 000 jobs with the commit; outcomes in request order. Raises and is awaited as `enqueue`."""
    work = all_of(add(connection, requests, Options(schema=schema, router=router, autocommit_ok=autocommit_ok)))
    return work if isinstance(connection, AsyncConnection) else at_once(work)


async def add(connection: AnyConnection, requests: Sequence[EnqueueRequest], options: Options) -> Added:
    """Add the jobs; on a blocking connection nothing is waited for."""
    return await _postgres.add(PsycopgDriver(connection), requests, options)


class PsycopgDriver:
    """Implements `Driver`, in cursors of our own: the caller's row and cursor factories are none of our business."""

    advice = "open one with `with connection.transaction()`"

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = connection

    @property
    def alone(self) -> bool:
        return self._connection.autocommit and self._connection.info.transaction_status is TransactionStatus.IDLE

    async def fetch(self, statement: Statement, params: Mapping[str, Any]) -> list[Row]:
        cursor = await self._execute(statement.named, params)
        return await settled(cursor.fetchall())

    async def count(self, statement: Statement, params: Mapping[str, Any]) -> int:
        return (await self._execute(statement.named, params)).rowcount

    async def command(self, sql: str) -> object:
        return await self._execute(sql, None)

    async def _execute(self, sql: str, params: Mapping[str, Any] | None) -> Cursor[Row] | AsyncCursor[Row]:
        if isinstance(self._connection, AsyncConnection):
            return await AsyncCursor(self._connection, row_factory=tuple_row).execute(sql, params)
        return Cursor(self._connection, row_factory=tuple_row).execute(sql, params)
