"""The network that breaks when told: what each fault looks like to a client, and what the server did meanwhile."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import generators

from forge_jobs.testing.cluster import until
from forge_jobs.testing.fault_proxy import FaultProxy, address_of
from forge_jobs.testing.postgres import Server
from forge_jobs.testing.throwaway import LOOPBACK, reserved_port

SLOW_COMMIT = """
CREATE TABLE kept (n int);
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE NOTICE 'not yet'; PERFORM pg_sleep(0.3); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION dawdle();
"""
"""A table whose inserts take a while to commit, after the server has said something."""


@pytest.fixture
def url(proxy: FaultProxy, database: str) -> str:
    """The test's database by way of the proxy, with a table in it."""
    run(database, "CREATE TABLE kept (n int)")
    return proxy.url_through(database)


def run(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def kept(url: str) -> list[int]:
    return [n for (n,) in run(url, "SELECT n FROM kept ORDER BY n")]


def clients_of(database: str) -> int:
    """How many other connections the server has to the database."""
    ((count,),) = run(
        database,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'",
    )
    return int(count)


async def knocked(proxy: FaultProxy, before: int) -> None:
    await until(lambda: proxy.traffic.connections > before, what="a client that comes")


# Without a fault


def test_everything_passes_and_is_counted(proxy: FaultProxy, url: str) -> None:
    text = "x" * 3_000_000
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT %s::text", [text]).fetchone() == (text,)
        assert proxy.traffic.open_connections == 1
        with psycopg.connect(url) as second:
            assert second.execute("SELECT 1").fetchone() == (1,)
    traffic = proxy.traffic
    assert traffic.connections == 2
    assert traffic.bytes_to_server > len(text)
    assert traffic.bytes_to_client > len(text)
    assert traffic.swallowed == 0


async def test_it_counts_what_the_server_was_asked_to_do(proxy: FaultProxy, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        before = proxy.traffic.statements
        connection.execute("BEGIN; SELECT 1; COMMIT")
        assert proxy.traffic.statements - before == 3
        for _ in range(7):
            connection.execute("SELECT %s::int", [1], prepare=True)
        assert proxy.traffic.statements - before == 10
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        assert proxy.traffic.statements - before == 11


async def test_it_is_of_use_to_any_driver(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
    finally:
        await connection.close()


async def test_an_end_is_passed_on(proxy: FaultProxy, database: str, url: str) -> None:
    psycopg.connect(url).close()
    await until(lambda: proxy.traffic.open_connections == 0)
    with psycopg.connect(url, autocommit=True) as connection:
        run(database, f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")


def test_only_urls_of_its_server_lead_through_it(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match=r"is not on 127\.0\.0\.1:\d+, which is where port \d+ leads"):
        proxy.url_through("postgresql://postgres@db.example:5432/jobs")


def test_a_server_that_is_down_is_down_through_the_proxy() -> None:
    with reserved_port() as port:
        url = f"postgresql://postgres@127.0.0.1:{port}/jobs"
        with FaultProxy(url) as proxy, pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.url_through(url))


# Cut, refuse, freeze, delay


async def test_a_cut_ends_connections_on_both_sides(proxy: FaultProxy, database: str, url: str) -> None:
    connections = [psycopg.connect(url) for _ in range(3)]
    for connection in connections:
        connection.execute("SELECT 1")
    assert clients_of(database) == 3
    proxy.cut()
    assert proxy.traffic.open_connections == 0
    for connection in connections:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
    await until(lambda: clients_of(database) == 0, what="the server has noticed")
    assert run(url, "SELECT 1") == [(1,)]


def test_refused_clients_are_told_at_once_and_others_go_on(proxy: FaultProxy, url: str) -> None:
    with psycopg.connect(url) as connection:
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(url)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    proxy.accept()
    assert run(url, "SELECT 1") == [(1,)]


async def test_a_black_hole_passes_nothing_and_keeps_connections(proxy: FaultProxy, database: str, url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        proxy.freeze()
        before = proxy.traffic
        insert = asyncio.ensure_future(connection.execute("INSERT INTO kept VALUES (1)"))
        _, waiting = await asyncio.wait([insert], timeout=0.2)
        assert waiting == {insert}
        assert proxy.traffic == before
        assert kept(database) == []
        proxy.thaw()
        await insert
    assert kept(database) == [1]


async def test_a_black_hole_takes_new_connections_too_and_can_be_cut(proxy: FaultProxy, url: str) -> None:
    proxy.freeze()
    connecting = asyncio.ensure_future(psycopg.AsyncConnection.connect(url))
    await until(lambda: proxy.traffic.connections == 1)
    _, waiting = await asyncio.wait([connecting], timeout=0.2)
    assert waiting == {connecting}
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        await connecting
    proxy.thaw()
    assert run(url, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("direction", ["to_server_s", "to_client_s"])
def test_a_delay_makes_each_answer_late_however_many_messages_it_has(
    proxy: FaultProxy, url: str, direction: str
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        proxy.delay(**{direction: 0.2})
        began = time.monotonic()
        rows = connection.execute("SELECT generate_series(1, 100)").fetchall()
        took_s = time.monotonic() - began
        proxy.delay()
        assert rows == [(n,) for n in range(1, 101)]
        assert 0.2 <= took_s < 5.0


# Swallowed answers and requests


def commit(connection: psycopg.Connection[Any]) -> None:
    connection.execute("INSERT INTO kept VALUES (1)")
    connection.commit()


def commit_in_a_pipeline(connection: psycopg.Connection[Any]) -> None:
    """One batch of the extended protocol."""
    with connection.pipeline():
        connection.execute("INSERT INTO kept VALUES (%s)", [1])
        connection.commit()


def autocommit_with_parameters(connection: psycopg.Connection[Any]) -> None:
    """The extended protocol: what is said and what is done are different messages."""
    connection.autocommit = True
    connection.execute("INSERT /* COMMIT */ INTO kept VALUES (%s)", [1])


def autocommit_prepared(connection: psycopg.Connection[Any]) -> None:
    """The server answers the preparation first, and has done nothing then."""
    connection.autocommit = True
    connection.execute("INSERT /* COMMIT */ INTO kept VALUES (%s)", [1], prepare=True)


@pytest.mark.parametrize(
    "act", [commit, commit_in_a_pipeline, autocommit_with_parameters, autocommit_prepared], ids=lambda act: act.__name__
)
def test_a_commit_is_done_when_its_answer_is_swallowed(
    proxy: FaultProxy, database: str, act: Callable[[psycopg.Connection[Any]], None]
) -> None:
    run(database, SLOW_COMMIT)
    with psycopg.connect(proxy.url_through(database)) as connection:
        proxy.swallow_answer_after(b"COMMIT")
        with pytest.raises(psycopg.OperationalError):
            act(connection)
    assert kept(database) == [1]
    assert proxy.traffic.swallowed == 1


async def test_a_commit_of_asyncpg_is_done_when_its_answer_is_swallowed(proxy: FaultProxy, database: str) -> None:
    run(database, SLOW_COMMIT)
    connection = await asyncpg.connect(proxy.url_through(database))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO kept VALUES ($1)", 1)
    proxy.swallow_answer_after(b"COMMIT")
    with pytest.raises((asyncpg.ConnectionDoesNotExistError, ConnectionError)):
        await transaction.commit()
    assert kept(database) == [1]
    connection.terminate()


def test_one_answer_is_swallowed_and_no_more(proxy: FaultProxy, database: str, url: str) -> None:
    proxy.swallow_answer_after(b"COMMIT")
    for number in range(3):
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO kept VALUES (%s)", [number])
            if number == 0:
                with pytest.raises(psycopg.OperationalError):
                    connection.commit()
    assert kept(database) == [0, 1, 2]
    assert proxy.traffic.swallowed == 1


def test_answers_to_what_was_asked_before_arrive(proxy: FaultProxy, database: str, url: str) -> None:
    proxy.swallow_answer_after(b"second")
    with (
        psycopg.connect(url, autocommit=True) as connection,
        pytest.raises(psycopg.OperationalError),
        connection.pipeline() as pipeline,
    ):
        first = connection.execute("INSERT INTO kept VALUES (1) RETURNING n")
        pipeline.sync()
        connection.execute("INSERT /* second */ INTO kept VALUES (2)")
    assert first.fetchone() == (1,)
    assert kept(database) == [1, 2]


@pytest.mark.parametrize("marker", [b"COPY", b"COMMIT"])
def test_a_copy_does_not_lead_the_count_of_answers_astray(
    proxy: FaultProxy, database: str, url: str, marker: bytes
) -> None:
    """COPY FROM STDIN in the extended protocol: a Sync before the data, which nothing answers, and one after."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        proxy.swallow_answer_after(marker)
        wire = connection.pgconn
        with pytest.raises(psycopg.OperationalError):
            wire.send_query_params(b"COPY kept FROM STDIN", [])
            connection.wait(generators.execute(wire))
            connection.wait(generators.copy_to(wire, b"1\n"))
            connection.wait(generators.copy_end(wire, None))
            connection.commit()
    assert proxy.traffic.swallowed == 1
    assert kept(database) == ([1] if marker == b"COMMIT" else [])


def test_a_swallowed_request_is_not_done(proxy: FaultProxy, database: str, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO kept VALUES (1)")
        proxy.swallow_request(b"COMMIT")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert kept(database) == []
    assert proxy.traffic.swallowed == 1


# Itself


def test_nothing_of_it_stays(server: Server) -> None:
    with FaultProxy(server.url) as proxy:
        url = proxy.url_through(server.url)
        connection = psycopg.connect(url)
        proxy.freeze()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url)


@pytest.mark.filterwarnings("error")
async def test_a_client_that_comes_in_the_moment_of_a_refusal_leaves_no_socket_open(server: Server) -> None:
    """Warnings are errors here, so one that is left is one."""
    ended = threading.Event()

    def knock(port: int) -> None:
        while not ended.is_set():
            with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=5):
                pass

    with FaultProxy(server.url) as proxy, ThreadPoolExecutor(2) as clients:
        _, port = address_of(proxy.url_through(server.url))
        knocking = [clients.submit(knock, port) for _ in range(2)]
        for _ in range(5):
            before = proxy.traffic.connections
            await knocked(proxy, before)
            proxy.refuse()
            proxy.accept()
        ended.set()
        for client in knocking:
            client.result()
    gc.collect()
