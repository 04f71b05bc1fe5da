"""A handler's transaction on an SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forge_jobs.storage.error import StoreUnavailable
from forge_jobs.storage.sql.driver import Row
from forge_jobs.storage.sqlite import connection as sqlite
from forge_jobs.storage.sqlite.driver import SqliteDriver
from forge_jobs.storage.sqlite.turnstile import Turnstile

LONGEST_S: Final = 5.0
"""It holds the file's only write lock: everybody else waits for its end."""


class SqliteSession:
    """Implements `Session`: a connection beside the driver's, under the same turnstile."""

    def __init__(self, driver: SqliteDriver) -> None:
        driver.check()
        if driver.database is None:
            raise StoreUnavailable("a database in memory has one connection; a transaction of a handler needs a file")
        self._turnstile = Turnstile(driver.database)
        self._turnstile.enter()
        try:
            self.connection = sqlite.connect(
                driver.database, durability=driver.config.durability, busy_timeout_ms=sqlite.BUSY_TRY_MS
            )
            sqlite.begin(self.connection, time.monotonic() + driver.config.store_deadline_s)
        except sqlite3.Error as error:
            self.close()
            raise sqlite.translate(error, driver.database) from error
        except BaseException:
            self.close()
            raise
        self.tx = sqlite.SqliteTx(self.connection, driver.book, driver.clock)
        self._driver = driver

    def execute(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None) -> list[Row]:
        rows: list[Row] = self.connection.execute(sql, params or ()).fetchall()
        return rows

    def commit(self) -> None:
        if not self.connection.in_transaction:
            raise StoreUnavailable("the transaction was ended by a statement of the handler's; leave that to the block")
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise sqlite.translate(error, self._driver.database) from error

    def close(self) -> None:
        if hasattr(self, "connection"):
            sqlite.rollback(self.connection)
            self.connection.close()
        self._turnstile.leave()
        self._turnstile.close()
