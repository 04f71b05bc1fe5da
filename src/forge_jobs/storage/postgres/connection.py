"""PostgreSQL connections as forge-jobs needs them, and their transactions."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakSet

import msgspec
import psycopg
from psycopg import Cursor
from psycopg.types.numeric import Int8Dumper

from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig
from forge_jobs.storage.error import ConfigError, StoreUnavailable
from forge_jobs.storage.postgres.errors import away
from forge_jobs.storage.postgres.time import StoreClock
from forge_jobs.storage.sql.driver import Row

log = logging.getLogger("forge_jobs.postgres")

OLDEST_SERVER: Final = 130_000
CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_MS: Final = 5_000
LOCK_TIMEOUT_MS: Final = 2_000
ENQUEUE_LOCK_TIMEOUT_MS: Final = 250
"""Enqueues of a process share a connection: one that waits for somebody's key must not hold the others up for long."""
IDLE_IN_TRANSACTION_MS: Final = 10_000
TRY_S: Final = 6.0
"""After this long without an answer a connection is taken for dead and cut; the server gives up before."""
RECONNECT_S: Final = (0.2, 1.0)
"""Least time between two attempts of one process to connect, after the first failure and after many."""
T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


class _TruthDumper(Int8Dumper):
    """Truth values are 0 and 1 in our tables, as on SQLite."""

    def dump(self, obj: Any) -> Any:
        return super().dump(int(obj))


class Connection:
    """One connection, used by one thread, which another may cut."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw
        self.preamble = ""
        """What every transaction must say first, behind a pooler: nothing said before is remembered there."""
        self.sent = 0
        """Statements sent so far."""
        self.patience_s = TRY_S
        """How long the server may owe an answer."""
        self._since: float | None = None
        self._cutting = threading.Lock()

    def execute(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None) -> Cursor[Any]:
        """Run one statement; `silent_s` grows until it is answered."""
        self._since = time.monotonic()
        self.sent += 1
        try:
            return self.raw.execute(sql, params)
        finally:
            self._since = None

    def command(self, sql: str, *, timed: bool = True) -> Cursor[Any]:
        """Run commands without parameters, several at once if need be; the cursor stands at the last one's answer."""
        self._since = time.monotonic() if timed else None
        self.sent += sql.count(";") + 1
        try:
            cursor = self.raw.execute(sql, prepare=False)
        finally:
            self._since = None
        while cursor.nextset():
            pass
        return cursor

    @property
    def pooled(self) -> bool:
        return bool(self.preamble)

    @property
    def silent_s(self) -> float:
        """How long the server has owed an answer."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def cut(self) -> None:
        """End it from another thread: whoever waits for its answer gets an error at once."""
        with self._cutting, contextlib.suppress(OSError, psycopg.Error):
            if not self.raw.closed:
                with socket.socket(fileno=os.dup(self.raw.fileno())) as wire:
                    wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._cutting, contextlib.suppress(Exception):
            self.raw.close()


class Connector:
    """Makes the connections of one process, not faster than the server may be asked."""

    def __init__(self, url: str, config: StoreConfig, clock: StoreClock) -> None:
        self.url = url
        self.config = config
        self.clock = clock
        self.pooled: bool | None = None
        """Whether a pooler stands between us and the store; unknown before the first connection."""
        self.unreachable: StoreUnavailable | None = None
        """Why the last attempt of any lane failed: who waits for a turn to try knows it too."""
        self._failures = 0
        self._not_before = 0.0
        self._lock = threading.Lock()
        self._open: WeakSet[Connection] = WeakSet()

    def overdue(self) -> list[Connection]:
        """The connections that owe an answer for too long, to be cut."""
        with self._lock:
            return [connection for connection in self._open if connection.silent_s > connection.patience_s]

    def connect(self, role: str, *, url: str | None = None, lock_timeout_ms: int = LOCK_TIMEOUT_MS) -> Connection:
        """A connection in autocommit mode with our timeouts. Waits if the last attempt failed a moment ago.

        Raises:
            psycopg.Error: it cannot be had now.
            ConfigError: the server is too old, or the URL means nothing to it.
        """
        self._wait_for_turn()
        own = url in (None, self.url)
        try:
            connection = self._connect(url or self.url, role, lock_timeout_ms)
        except (psycopg.Error, OSError) as error:
            with self._lock:
                if own:  # what is wrong with a URL to listen on says nothing of the store
                    self.unreachable = StoreUnavailable(away(error, self.url))
                pause = min(RECONNECT_S[0] * 1.5**self._failures, RECONNECT_S[1])
                self._failures = min(self._failures + 1, 20)
                self._not_before = time.monotonic() + pause * random.uniform(1.0, 1.3)  # noqa: S311
            raise
        with self._lock:
            self._failures = 0
            if own:
                self.unreachable = None
                self.pooled = connection.pooled
        return connection

    def _wait_for_turn(self) -> None:
        while True:
            with self._lock:
                wait = self._not_before - time.monotonic()
                if wait <= 0:
                    if self._failures:  # one attempt at a time while the server is away
                        self._not_before = time.monotonic() + RECONNECT_S[0]
                    return
            time.sleep(wait)

    def _connect(self, url: str, role: str, lock_timeout_ms: int) -> Connection:
        try:
            raw = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
                tcp_user_timeout=round(TRY_S * 1000),
                target_session_attrs="read-write",
                application_name=f"forge-jobs/{role}",
            )
        except psycopg.ProgrammingError as error:
            raise ConfigError(f"the database URL cannot be read: {error}") from error
        connection = Connection(raw)
        with self._lock:
            self._open.add(connection)
        try:
            self._prepare(connection, lock_timeout_ms)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection, lock_timeout_ms: int) -> None:
        raw = connection.raw
        if raw.info.server_version < OLDEST_SERVER:
            raise ConfigError(f"PostgreSQL {raw.info.server_version // 10_000} is too old; 13 or newer is needed")
        raw.adapters.register_dumper(int, Int8Dumper)
        raw.adapters.register_dumper(bool, _TruthDumper)
        row = connection.command("SELECT pg_backend_pid(), current_setting('server_encoding')").fetchone()
        assert row is not None
        if row[1] != "UTF8":
            raise ConfigError(f"the database's encoding is {row[1]}; forge-jobs needs UTF8")
        pooled = row[0] != raw.info.backend_pid  # a pooler answers with a backend that is not the one it names
        settings = {
            "statement_timeout": STATEMENT_TIMEOUT_MS,
            "lock_timeout": lock_timeout_ms,
            "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MS,
        }
        if self.config.durability == "process":
            settings["synchronous_commit"] = 0
        if pooled:
            raw.prepare_threshold = None
            connection.preamble = "".join(f"; SET LOCAL {name} = {value}" for name, value in settings.items())
            return
        raw.prepare_threshold = 1
        connection.command("; ".join(f"SET {name} = {value}" for name, value in settings.items()))


class PostgresTx:
    """Implements `Tx`: a transaction that begins with its first statement.

    `injected` is the clock that tests put in the place of the server's.
    """

    makes_queues: Final = True

    def __init__(
        self,
        connection: Connection,
        book: Mapping[str, str],
        clock: StoreClock,
        injected: Clock | None,
        *,
        read_only: bool = False,
    ) -> None:
        self.connection = connection
        self.inserted = 0
        """Rows added by `change_many`."""
        self.may_have_happened = False
        """Something was sent that is for good once it is done, and not answered yet."""
        self._book = book
        self._clock = clock
        self._injected = injected
        self._read_only = read_only
        self._now_us: int | None = None

    @property
    def now_us(self) -> int:
        return self._begin() if self._now_us is None else self._now_us

    @property
    def injected_us(self) -> int | None:
        """Store time, if it is not the server's clock."""
        return None if self._injected is None else self._injected.now_us()

    @property
    def begun(self) -> bool:
        return self._now_us is not None

    def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]:
        return self._run(name, params).fetchall()

    def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None:
        found: Row | None = self._run(name, params).fetchone()
        return found

    def change(self, name: str, params: Mapping[str, Any] = {}) -> int:
        return self._run(name, params).rowcount

    def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
        count = self._run(name, {"rows": _encode(list(many)).decode()}).rowcount
        self.inserted += count
        return count

    def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]:
        params = {"keys": _encode(sorted(keys)).decode()}
        if wait:
            self._run("reserve_keys", params)
            return ()
        return {key for (key,) in self._run("try_reserve_keys", params).fetchall()}

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        if self._now_us is None:
            self._begin()
        self.connection.command("SAVEPOINT part")
        try:
            yield
        except psycopg.OperationalError as error:
            if self.connection.raw.broken or error.sqlstate is None:
                raise
            self._back()
            raise
        except BaseException:
            self._back()
            raise
        self.connection.command("RELEASE part")

    def _back(self) -> None:
        self.connection.command("ROLLBACK TO part; RELEASE part")

    def only(self, name: str, params: Mapping[str, Any]) -> list[Row]:
        """The one statement of this transaction, sent by itself: it is atomic without more. Behind a pooler, or when
        the transaction has begun, it is one among others."""
        if self._now_us is not None or self.connection.preamble:
            return self.rows(name, params)
        self.may_have_happened = True
        rows: list[Row] = self.connection.execute(self._book[name], params).fetchall()
        self.may_have_happened = False
        return rows

    def commit(self) -> None:
        """Make it durable. If the answer is lost, `may_have_happened` stays."""
        if self._now_us is None:
            return
        self.may_have_happened = True
        self.connection.command("COMMIT")
        self.may_have_happened = False

    def rollback(self) -> None:
        if self._now_us is not None and not self.connection.raw.closed:
            with contextlib.suppress(psycopg.Error):
                self.connection.command("ROLLBACK")

    def _run(self, name: str, params: Mapping[str, Any]) -> Cursor[Any]:
        now_us = self._begin() if self._now_us is None else self._now_us
        return self.connection.execute(self._book[name], {"now": now_us, **params})

    def _begin(self) -> int:
        begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if self._read_only else "BEGIN"
        sent = time.monotonic_ns()
        clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
        cursor = self.connection.command(f"{begin}{self.connection.preamble}; {clock}")
        server_us: int = cursor.fetchone()[0]  # type: ignore[index]
        self._clock.sample(sent, time.monotonic_ns(), server_us)
        injected = self.injected_us
        self._now_us = server_us if injected is None else injected
        return self._now_us


def check_reachable(connector: Connector) -> Connection:
    """The first connection of a store.

    Raises:
        StoreUnavailable: the server does not answer.
        ConfigError: it answers, and cannot be used.
    """
    try:
        return connector.connect("open")
    except (psycopg.Error, OSError) as error:
        raise StoreUnavailable(away(error, connector.url)) from error
