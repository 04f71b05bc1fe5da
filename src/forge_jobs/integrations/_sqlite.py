"""A transaction of the caller's on SQLite, by `sqlite3` or by `aiosqlite`, whose calls have the same names."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from forge_jobs.clock import SystemClock
from forge_jobs.integrations import _enqueue
from forge_jobs.integrations._enqueue import SAVEPOINT, Added, Options, bracket, settled
from forge_jobs.storage.sql import claim
from forge_jobs.storage.sql.book import load_book
from forge_jobs.storage.sql.driver import Row
from forge_jobs.storage.sqlite.checkpoint import is_safe_version
from forge_jobs.storage.types.job import EnqueueRequest

if TYPE_CHECKING:
    import aiosqlite

log = logging.getLogger("forge_jobs.integrations")

Connection: TypeAlias = "sqlite3.Connection | aiosqlite.Connection"
_LEGACY: Final = -1
"""`sqlite3.LEGACY_TRANSACTION_CONTROL`, where there is another: since Python 3.12."""
_clock: Final = SystemClock()
_warned: Final[list[bool]] = []
"""Whether this process has been warned."""


async def add(connection: Connection, requests: Sequence[EnqueueRequest], options: Options) -> Added:
    """Add the jobs, all on one cursor of our own: the caller's row factory is none of our business."""
    cursor: Any = await settled(cast("Any", connection.cursor()))
    cursor.row_factory = None
    try:
        return await _enqueue.add(SqliteTx(connection, cursor), requests, options)
    finally:
        await settled(cursor.close())


async def begin(connection: Connection) -> None:
    """Open the transaction that `sqlite3` would open before the first write; in autocommit mode it would not."""
    legacy = getattr(connection, "autocommit", _LEGACY) == _LEGACY
    if legacy and not connection.in_transaction and connection.isolation_level is not None:
        await settled(cast("Any", connection.execute(f"BEGIN {connection.isolation_level}")))


class SqliteTx:
    """Implements `CallersTx`."""

    makes_queues: Final = False
    advice = "begin one (a write does, unless isolation_level is None)"

    def __init__(self, connection: Connection, cursor: Any) -> None:
        self._connection = connection
        self._cursor = cursor
        self.now_us = _clock.now_us()

    @property
    def alone(self) -> bool:
        return not self._connection.in_transaction

    async def look(self) -> None:
        """Take the file to write, and see that our schema is there and that the connection makes no checkpoints where
        that is a risk.

        To write at once: a deferred transaction that reads first keeps what it saw, and its first write is refused
        without waiting if anybody committed meanwhile, as workers do all the time.
        """
        try:
            await self._execute("UPDATE forge_schema SET version = version WHERE 0")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            raise _enqueue.no_schema("this SQLite file") from error
        if is_safe_version(sqlite3.sqlite_version_info) or _warned:
            return
        if (await self._fetch("PRAGMA wal_autocheckpoint"))[0][0]:
            _warned.append(True)
            log.warning(
                "checkpoint_risk: SQLite %s can corrupt a file that two connections checkpoint; on this connection say "
                "PRAGMA wal_autocheckpoint=0",
                sqlite3.sqlite_version,
            )

    def transaction(self) -> AbstractAsyncContextManager[None]:
        return self.savepoint()  # the outermost one is a transaction

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return bracket(self._execute, *SAVEPOINT)

    async def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]:
        return await self._fetch(_book()[name], {"now": self.now_us, **params})

    async def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None:
        found = await self.rows(name, params)
        return found[0] if found else None

    async def change(self, name: str, params: Mapping[str, Any] = {}) -> int:
        await self._execute(_book()[name], {"now": self.now_us, **params})
        return int(self._cursor.rowcount)

    async def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
        await settled(self._cursor.executemany(_book()[name], many))
        return int(self._cursor.rowcount)

    async def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]:
        return ()  # a write transaction is alone anyway

    async def _fetch(self, sql: str, params: Mapping[str, Any] = {}) -> list[Row]:
        await self._execute(sql, params)
        rows: list[Row] = await settled(self._cursor.fetchall())
        return rows

    async def _execute(self, sql: str, params: Mapping[str, Any] = {}) -> None:
        await settled(self._cursor.execute(sql, params))


@cache
def _book() -> dict[str, str]:
    return dict(load_book(files("forge_jobs.storage.sqlite").joinpath("overlay.sql"), claim.PART))
