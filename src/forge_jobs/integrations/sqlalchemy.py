"""Enqueueing in a transaction of SQLAlchemy 2, in the database that the workers use.

with Session(engine) as session:
    session.add(Order(id=7))
    enqueue(session, EnqueueRequest("receipt_send", {"order": 7}), wake=storage.wake)
    session.commit()

On an `AsyncSession` or `AsyncConnection` both functions are awaited. The jobs are written by the driver's own
connection, in the transaction that SQLAlchemy has open on it: psycopg or asyncpg, `sqlite3` or aiosqlite.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeAlias, overload

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from forge_jobs.integrations import _sqlite
from forge_jobs.integrations._enqueue import ROUTER, SCHEMA, Added, Options, Wake, all_of, one, settled, tell
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.sql.at_once import at_once
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

Blocking: TypeAlias = Connection | Session | scoped_session[Any]
Awaited: TypeAlias = AsyncConnection | AsyncSession | async_scoped_session[Any]
_WAKES: Final = "forge_jobs_wakes"


@overload
def enqueue(
    target: Blocking,
    request: EnqueueRequest,
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome: ...
@overload
def enqueue(
    target: Awaited,
    request: EnqueueRequest,
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> Awaitable[EnqueueOutcome]: ...
def enqueue(
    target: Blocking | Awaited,
    request: EnqueueRequest,
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome | Awaitable[EnqueueOutcome]:
    """Add one job with the commit of a session or connection. If no transaction is open one begins, as with every
    statement. Awaited on the async ones; if it is cancelled there, roll back.

    `wake` is told the job's queue once a session has committed, and never if the job was rolled back: `storage.wake`,
    or `queue.wake` of a `SyncQueue`. On PostgreSQL a job with a dedupe key waits for another open transaction on the
    same key, for at most your `lock_timeout`.

    Raises:
        NoTransaction: the isolation level is AUTOCOMMIT, and `autocommit_ok` is not set.
        ConfigError: the driver is another one, or `wake` is given with a connection, which does not tell of its commit.
        SchemaMismatch: the database has no forge-jobs schema of this name.
        InvalidInput, DedupeConflict, IdReused, QueueFull: as of every enqueue; your transaction is as it was.
    """
    options = Options(schema=schema, router=router, autocommit_ok=autocommit_ok)
    found = _unscoped(target)
    work = one(_add(found, [request], options, wake))
    return work if isinstance(found, AsyncConnection | AsyncSession) else at_once(work)


@overload
def enqueue_bulk(
    target: Blocking,
    requests: Sequence[EnqueueRequest],
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]: ...
@overload
def enqueue_bulk(
    target: Awaited,
    requests: Sequence[EnqueueRequest],
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> Awaitable[list[EnqueueOutcome]]: ...
def enqueue_bulk(
    target: Blocking | Awaited,
    requests: Sequence[EnqueueRequest],
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome] | Awaitable[list[EnqueueOutcome]]:
    """Add up to 10 000 jobs with the commit; outcomes in request order. Raises and is awaited as `enqueue`."""
    options = Options(schema=schema, router=router, autocommit_ok=autocommit_ok)
    found = _unscoped(target)
    work = all_of(_add(found, requests, options, wake))
    return work if isinstance(found, AsyncConnection | AsyncSession) else at_once(work)


def _unscoped(target: Blocking | Awaited) -> Connection | Session | AsyncConnection | AsyncSession:
    found: Any = target() if isinstance(target, scoped_session | async_scoped_session) else target
    if not isinstance(found, Connection | Session | AsyncConnection | AsyncSession):
        raise ConfigError(f"{type(found).__name__} is neither a Session nor a Connection of SQLAlchemy, async or not")
    return found


async def _add(
    target: Connection | Session | AsyncConnection | AsyncSession,
    requests: Sequence[EnqueueRequest],
    options: Options,
    wake: Wake | None,
) -> Added:
    """Add the jobs. On a blocking connection nothing is waited for."""
    if isinstance(target, Session | AsyncSession):
        added = await _add_on(await settled(target.connection()), requests, options)
        if wake is not None and added.queues:
            _wakes(target.sync_session if isinstance(target, AsyncSession) else target).add(wake, added.queues)
        return added
    if wake is not None:
        raise ConfigError("a Connection does not tell of its commit; give a Session, or call wake after the commit")
    if not target.in_transaction():
        await settled(target.begin())
    return await _add_on(target, requests, options)


async def _add_on(
    connection: Connection | AsyncConnection, requests: Sequence[EnqueueRequest], options: Options
) -> Added:
    """Add the jobs on the driver's connection, when it is sure that its transaction is open too: some open it only with
    the first statement that SQLAlchemy sends."""
    if isinstance(connection, AsyncConnection):
        raw: Any = (await connection.get_raw_connection()).driver_connection
    else:
        raw = connection.connection.driver_connection
    match connection.dialect.driver:
        case "pysqlite" | "aiosqlite":
            await _sqlite.begin(raw)
            return await _sqlite.add(raw, requests, options)
        case "psycopg":
            from forge_jobs.integrations import psycopg

            return await psycopg.add(raw, requests, options)
        case "asyncpg":
            from forge_jobs.integrations import asyncpg

            if not raw.is_in_transaction():
                await settled(connection.exec_driver_sql("SELECT 1"))
            return await asyncpg.add(raw, requests, options)
        case other:
            raise ConfigError(f"the driver {other!r} is none of psycopg, asyncpg, pysqlite and aiosqlite")


class _Wakes:
    """What is to be told after the next commit of one session, by the savepoint that it would vanish with."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: list[tuple[SessionTransaction | None, Wake, list[str]]] = []
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, wake: Wake, queues: list[str]) -> None:
        self._waiting.append((_boundary(self._session), wake, queues))

    def _committed(self, session: Session) -> None:
        """A savepoint was released: what it held depends on the one around it. Or the whole was committed."""
        released = session.get_nested_transaction()
        if released is not None:
            around = _around(released)
            self._waiting = [(around if part is released else part, *rest) for part, *rest in self._waiting]  # type: ignore[misc]
            return
        waiting, self._waiting = self._waiting, []
        for _, wake, queues in waiting:
            tell(wake, queues)

    def _ended(self, session: Session, ended: SessionTransaction) -> None:
        """What is still said to be part of it was rolled back with it."""
        self._waiting = [entry for entry in self._waiting if entry[0] is not ended]


def _wakes(session: Session) -> _Wakes:
    found = session.info.get(_WAKES)
    if not isinstance(found, _Wakes):
        found = session.info[_WAKES] = _Wakes(session)
    return found


def _boundary(session: Session) -> SessionTransaction | None:
    """The innermost savepoint of a session, or its transaction."""
    return session.get_nested_transaction() or session.get_transaction()


def _around(part: SessionTransaction) -> SessionTransaction | None:
    """What a savepoint lies in: another one or the transaction; the steps of a flush in between count as nothing."""
    outer = part.parent
    while outer is not None and outer.parent is not None and not outer.nested:
        outer = outer.parent
    return outer
