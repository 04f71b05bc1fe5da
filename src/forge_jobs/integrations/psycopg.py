"""Enqueueing in a transaction of psycopg 3's `Connection`, in the database that the workers use.

with psycopg.connect(url) as connection:
    connection.execute("INSERT INTO orders (id) VALUES (%s)", (7,))
    enqueue(connection, EnqueueRequest("receipt_send", {"order": 7}))
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from psycopg import Connection, Cursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from forge_jobs.integrations import _enqueue
from forge_jobs.integrations._enqueue import ROUTER, SeenSchemas
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.postgres import book
from forge_jobs.storage.sql.driver import Row
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

_seen: Final = SeenSchemas()
_NOW: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def enqueue(
    connection: Connection[Any],
    request: EnqueueRequest,
    *,
    schema: str = "forge",
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome:
    """Add one job with the commit of the connection's open transaction; psycopg opens one with the first statement,
    unless the connection is in autocommit mode.

    A job with a dedupe key waits for another open transaction on the same key, for at most your `lock_timeout`.

    Raises:
        NoTransaction: the connection is in autocommit mode, none is open, and `autocommit_ok` is not set.
        SchemaMismatch: the database has no forge-jobs schema of this name.
        InvalidInput, DedupeConflict, IdReused, QueueFull: as of every enqueue; your transaction is as it was.
    """
    options = {"schema": schema, "router": router, "autocommit_ok": autocommit_ok}
    return enqueue_bulk(connection, [request], **options)[0]  # type: ignore[arg-type]


def enqueue_bulk(
    connection: Connection[Any],
    requests: Sequence[EnqueueRequest],
    *,
    schema: str = "forge",
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]:
    """Add up to 10 000 jobs with the commit; outcomes in request order. Raises as `enqueue` does."""
    alone = connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE
    if alone and not autocommit_ok:
        raise _enqueue.no_transaction("open one with `with connection.transaction()`")
    if not _seen.has(connection, schema):
        with connection.cursor(row_factory=tuple_row) as cursor:
            found = cursor.execute("SELECT to_regclass(%s)", (f"{schema}.schema",)).fetchone()
        if found is None or found[0] is None:
            raise _enqueue.no_schema(f"the schema {schema} of this database")
        _seen.add(connection, schema)
    with connection.transaction() if alone else contextlib.nullcontext():
        return _enqueue.add(PsycopgTx(connection, _book(schema)), requests, router)


class PsycopgTx:
    """Implements `Tx` in somebody else's transaction."""

    def __init__(self, connection: Connection[Any], statements: Mapping[str, str]) -> None:
        self._connection = connection
        self._statements = statements
        now = self._execute(_NOW, {}).fetchone()
        assert now is not None
        self._now_us: int = now[0]

    @property
    def now_us(self) -> int:
        return self._now_us

    def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]:
        return self._run(name, params).fetchall()

    def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None:
        return self._run(name, params).fetchone()

    def change(self, name: str, params: Mapping[str, Any] = {}) -> int:
        return self._run(name, params).rowcount

    def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
        return self._run(name, {"rows": json.dumps(list(many))}).rowcount

    def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]:
        params = {"keys": json.dumps(sorted(keys))}
        if wait:
            self._run("reserve_keys", params)
            return ()
        return {key for (key,) in self._run("try_reserve_keys", params).fetchall()}

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        with self._connection.transaction():
            yield

    def _run(self, name: str, params: Mapping[str, Any]) -> Cursor[Row]:
        plain = {key: int(value) if type(value) is bool else value for key, value in params.items()}
        return self._execute(self._statements[name], {"now": self._now_us, **plain})

    def _execute(self, sql: str, params: Mapping[str, Any]) -> Cursor[Row]:
        """In a cursor of our own: the caller's row factory is none of our business."""
        return self._connection.cursor(row_factory=tuple_row).execute(sql, params)


@cache
def _book(schema: str) -> Mapping[str, str]:
    return book.load(schema)
