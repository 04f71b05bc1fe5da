"""SQLite connections as forge-jobs needs them, their transactions, and their errors by class."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from forge_jobs.clock import Clock
from forge_jobs.storage.error import Busy, StorageError, StoreFull, StoreUnavailable
from forge_jobs.storage.sql.driver import Operation, Row
from forge_jobs.storage.sqlite.turnstile import Turnstile

log = logging.getLogger("forge_jobs.sqlite")

BUSY_TIMEOUT_MS: Final = 5_000
BUSY_TRY_MS: Final = 100
"""How long one BEGIN of a writer waits; `begin` tries again until the deadline of what it is for."""
CACHE_KIB: Final = 8_192
T = TypeVar("T")


class SqliteTx:
    """Implements `Tx` on one connection."""

    makes_queues: Final = False

    def __init__(self, connection: sqlite3.Connection, book: Mapping[str, str], clock: Clock) -> None:
        self._connection = connection
        self._book = book
        self.now_us = clock.now_us()
        self._always = {"now": self.now_us, "tick": clock.elapsed_us(), "boot": clock.boot}

    def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]:
        return self._connection.execute(self._book[name], {**self._always, **params}).fetchall()

    def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None:
        found: list[Row] = self._connection.execute(self._book[name], {**self._always, **params}).fetchmany(1)
        return found[0] if found else None

    def change(self, name: str, params: Mapping[str, Any] = {}) -> int:
        return self._connection.execute(self._book[name], {**self._always, **params}).rowcount

    def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
        bound: Iterable[Any] = ({**self._always, **p} if isinstance(p, Mapping) else p for p in many)
        if isinstance(many, list) and many and isinstance(many[0], tuple):
            bound = many
        return self._connection.executemany(self._book[name], bound).rowcount

    def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]:
        return ()  # a write transaction is alone anyway

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO part")
                self._connection.execute("RELEASE part")
            raise
        self._connection.execute("RELEASE part")


def connect(
    database: Path | None, *, durability: str = "full", busy_timeout_ms: int = BUSY_TIMEOUT_MS, create: bool = False
) -> sqlite3.Connection:
    """A connection in autocommit mode with WAL and no checkpoints of its own.

    A missing file is made only with `create`: an empty one in the place of a store that was moved away would be
    taken for a store without jobs.

    Raises:
        StoreUnavailable: the file cannot be opened, or is not a database.
    """
    mode = "rwc" if create else "rw"
    try:
        connection = sqlite3.connect(
            ":memory:" if database is None else f"file:{quote(str(database))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            timeout=busy_timeout_ms / 1000,
        )
        if database is not None:
            journal = _retry_busy(connection, "PRAGMA journal_mode=WAL")
            if journal != "wal":
                raise StoreUnavailable(
                    f"{database} cannot use a write-ahead log (it says {journal}); move it to a local disk"
                )
        connection.execute(f"PRAGMA synchronous={'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint=0")  # only the writer's routine checkpoints; see checkpoint.py
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("PRAGMA foreign_keys=OFF")
        connection.execute("PRAGMA temp_store=MEMORY")
    except sqlite3.Error as error:
        raise translate(error, database) from error
    return connection


def look_at(database: Path) -> sqlite3.Connection:
    """A connection that cannot change anything, not even the journal mode of somebody else's file."""
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)


def in_transaction(
    connection: sqlite3.Connection,
    turnstile: Turnstile,
    book: Mapping[str, str],
    clock: Clock,
    operation: Operation[T],
    *,
    deadline: float,
) -> T:
    """Run one operation in a write transaction of its own; `deadline` is on `time.monotonic()`."""
    turnstile.enter()
    try:
        begin(connection, deadline)
        try:
            result = operation(SqliteTx(connection, book, clock))
            connection.execute("COMMIT")
        except BaseException:
            rollback(connection)
            raise
        return result
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        turnstile.leave()


def begin(connection: sqlite3.Connection, deadline: float) -> None:
    """BEGIN IMMEDIATE, tried again while another program holds the file, until `deadline`."""
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY_CODES or time.monotonic() >= deadline:
                raise
        else:
            return


def rollback(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


_BUSY_CODES: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_AWAY_CODES: Final = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
)
_DAMAGED_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def translate(error: sqlite3.Error, database: Path | None = None) -> StorageError:
    """The error of ours that an SQLite error code means. The driver's text goes to the log only."""
    code = _code(error)
    where = f" {database}" if database else ""
    log.debug("sqlite_error code=%s text=%s", getattr(error, "sqlite_errorname", "?"), error)
    if code in _BUSY_CODES:
        return Busy(f"the database{where} stayed locked by another program past the deadline; nothing was written")
    if code == sqlite3.SQLITE_FULL:
        return StoreFull("the disk of the database is full; nothing was written. Free some space, then try again")
    if code in _DAMAGED_CODES:
        return StoreUnavailable(f"the file{where} is damaged or not a database; restore it from a backup", fatal=True)
    if code in _AWAY_CODES:
        name = getattr(error, "sqlite_errorname", "an I/O error")
        return StoreUnavailable(
            f"the database{where} cannot be read or written ({name}); check the path, rights and disk"
        )
    return StorageError(
        f"the database refused a statement ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
    )


def name_of(error: sqlite3.Error) -> str:
    """SQLite's word for an error, such as SQLITE_FULL."""
    return getattr(error, "sqlite_errorname", type(error).__name__)


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _retry_busy(connection: sqlite3.Connection, sql: str) -> Any:
    """Changing to WAL needs the file for itself for a moment and does not wait by itself."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    pause = 0.001
    while True:
        try:
            row = connection.execute(sql).fetchone()
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY_CODES or time.monotonic() >= deadline:
                raise
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return row[0]
