"""A handler's transaction on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.pq import TransactionStatus

from forge_jobs.storage.error import OutcomeUnknown, StoreUnavailable
from forge_jobs.storage.postgres import errors
from forge_jobs.storage.postgres.connection import PostgresTx
from forge_jobs.storage.postgres.driver import PostgresDriver
from forge_jobs.storage.sql.driver import Row

LONGEST_S: Final = 30.0


class PostgresSession:
    """Implements `Session`: a connection for the time of the transaction."""

    def __init__(self, driver: PostgresDriver) -> None:
        driver.check()
        self._url = driver.connector.url
        with errors.translated(self._url):
            self._ours = driver.connector.connect("transaction")
            try:
                self._begin(driver)
            except BaseException:
                self._ours.close()
                raise

    def _begin(self, driver: PostgresDriver) -> None:
        self.connection = self._ours.raw
        self.tx = PostgresTx(self._ours, driver.book, driver.connector.clock, driver.injected)
        _ = self.tx.now_us  # begins
        self._ours.command(f"SET LOCAL idle_in_transaction_session_timeout = {round(LONGEST_S * 1000)}")
        self._ours.patience_s = LONGEST_S  # a statement of the user's may have a timeout of its own

    def execute(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None) -> list[Row]:
        cursor = self._ours.execute(sql, params)
        return cursor.fetchall() if cursor.description is not None else []

    def commit(self) -> None:
        if self.connection.info.transaction_status is not TransactionStatus.INTRANS:
            raise StoreUnavailable("the transaction failed or was ended within the block; nothing was committed")
        try:
            self.tx.commit()
        except errors.DRIVER_ERRORS as error:
            if errors.is_away(error):
                raise OutcomeUnknown("the connection to PostgreSQL broke during the commit") from error
            raise errors.translate(error, self._url) from error

    def close(self) -> None:
        self._ours.close()
