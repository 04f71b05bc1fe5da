"""PgBouncer in transaction mode as the tests start it: that it pools, and what its clients cannot have."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from forge_jobs.testing.fault_proxy import FaultProxy

from .starters import StartBouncer

Connection = psycopg.Connection[tuple[Any, ...]]


def backend_of(connection: Connection) -> int:
    """The process of the server that works for a client at the moment."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def connected(stack: ExitStack, url: str, clients: int) -> list[Connection]:
    return [stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in range(clients)]


def test_clients_share_a_backend_between_transactions(database: str, bouncer: StartBouncer) -> None:
    with ExitStack() as stack:
        first, second = connected(stack, bouncer(database).url_through(database), 2)
        assert backend_of(first) == backend_of(second)


def test_a_transaction_keeps_its_backend(database: str, bouncer: StartBouncer) -> None:
    with ExitStack() as stack:
        first, second = connected(stack, bouncer(database, pool_size=2).url_through(database), 2)
        with first.transaction():
            mine = backend_of(first)
            assert backend_of(second) != mine
            assert backend_of(first) == mine


def test_a_listener_hears_nothing(database: str, bouncer: StartBouncer) -> None:
    with ExitStack() as stack:
        (pooled,) = connected(stack, bouncer(database).url_through(database), 1)
        direct, sender = connected(stack, database, 2)
        for listener in (direct, pooled):
            listener.execute("LISTEN news")
        sender.execute("NOTIFY news, 'hello'")
        assert [heard.payload for heard in direct.notifies(timeout=10, stop_after=1)] == ["hello"]
        assert list(pooled.notifies(timeout=0.2)) == []


def test_the_console_says_how_it_pools(database: str, bouncer: StartBouncer) -> None:
    pooler = bouncer(database)
    with psycopg.connect(pooler.url_through(database)) as client:
        client.execute("SELECT 1")
        name = client.info.dbname
        with psycopg.connect(pooler.console_url, autocommit=True, row_factory=dict_row) as console:
            # The console speaks the simple query protocol only, which is what a client-side cursor uses.
            pools = psycopg.ClientCursor(console).execute("SHOW POOLS").fetchall()
    assert [pool["pool_mode"] for pool in pools if pool["database"] == name] == ["transaction"]


def test_a_cut_behind_it_ends_the_transaction_and_is_mended_after(
    database: str, proxy: FaultProxy, bouncer: StartBouncer
) -> None:
    behind = proxy.url_through(database)
    pooler = bouncer(behind)
    with ExitStack() as stack:
        (client,) = connected(stack, pooler.url_through(behind), 1)
        with pytest.raises(psycopg.OperationalError), client.transaction():
            before = backend_of(client)
            proxy.cut()
            backend_of(client)
        (client,) = connected(stack, pooler.url_through(behind), 1)
        assert backend_of(client) != before
