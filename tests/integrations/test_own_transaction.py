"""A job enqueued in the caller's transaction exists if and only if that transaction commits."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from forge_jobs import Deduped, Enqueued, EnqueueRequest, open_storage
from forge_jobs.integrations import psycopg as of_psycopg
from forge_jobs.integrations import sqlite3 as of_sqlite3
from forge_jobs.storage.error import DedupeConflict, InvalidInput, NoTransaction, SchemaMismatch
from forge_jobs.storage.types.job import JobFilter, JobRow
from forge_jobs.testing.postgres import Server


@dataclass
class Library:
    """One library on one store."""

    url: str
    connect: Callable[[], Any]
    module: Any

    def jobs(self) -> list[JobRow]:
        async def read() -> list[JobRow]:
            async with open_storage(self.url, create=False) as storage:
                return list((await storage.jobs.list_jobs(JobFilter())).items)

        return asyncio.run(read())


async def _create(url: str) -> None:
    async with open_storage(url):
        pass


@pytest.fixture(params=["sqlite3", "psycopg"])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Library]:
    if request.param == "sqlite3":
        path = tmp_path / "jobs.db"
        made = Library(f"sqlite:///{path}", lambda: sqlite3.connect(path), of_sqlite3)
    else:
        url = request.getfixturevalue("server").new_database()
        made = Library(url, lambda: psycopg.connect(url), of_psycopg)
    asyncio.run(_create(made.url))
    with closing(made.connect()) as connection:
        connection.execute("CREATE TABLE orders (id integer)")
        connection.commit()
    yield made


def _orders(library: Library) -> int:
    with closing(library.connect()) as connection:
        count: int = connection.execute("SELECT count(*) FROM orders").fetchone()[0]
        return count


def test_a_commit_brings_the_row_and_the_job(library: Library) -> None:
    with closing(library.connect()) as connection:
        connection.execute("INSERT INTO orders VALUES (7)")
        outcome = library.module.enqueue(connection, EnqueueRequest("receipt", {"ä": [1, None, "\x00"]}, delay=60))
        assert isinstance(outcome, Enqueued)
        assert library.jobs() == []  # nobody sees it yet
        connection.commit()
    (job,) = library.jobs()
    assert (job.id, job.kind, job.queue, job.status) == (outcome.id, "receipt", "default", "pending")
    assert job.payload_text == '{"\\u00e4":[1,null,"\\u0000"]}'
    assert _orders(library) == 1


def test_after_a_rollback_neither_ever_existed(library: Library) -> None:
    with closing(library.connect()) as connection:
        connection.execute("INSERT INTO orders VALUES (7)")
        library.module.enqueue(connection, EnqueueRequest("receipt", dedupe_key="receipt-7", unique_for=3600))
        connection.rollback()
        connection.execute("INSERT INTO orders VALUES (8)")
        again = library.module.enqueue(connection, EnqueueRequest("receipt", dedupe_key="receipt-7"))
        assert isinstance(again, Enqueued)  # nor did its key
        connection.commit()
    assert [job.id for job in library.jobs()] == [again.id]


def test_a_held_key_is_an_answer_and_the_transaction_goes_on(library: Library) -> None:
    with closing(library.connect()) as connection:
        connection.execute("INSERT INTO orders VALUES (7)")
        first = library.module.enqueue(connection, EnqueueRequest("receipt", dedupe_key="k"))
        second = library.module.enqueue(connection, EnqueueRequest("receipt", dedupe_key="k"))
        assert isinstance(second, Deduped)
        assert second.id == first.id
        with pytest.raises(DedupeConflict):
            library.module.enqueue(connection, EnqueueRequest("receipt", dedupe_key="k", on_conflict="error"))
        with pytest.raises(InvalidInput):
            library.module.enqueue(connection, EnqueueRequest("receipt", priority=10**6))
        connection.execute("INSERT INTO orders VALUES (8)")
        connection.commit()
    assert (_orders(library), len(library.jobs())) == (2, 1)


def test_a_bulk_is_all_or_nothing_and_keeps_its_order(library: Library) -> None:
    with closing(library.connect()) as connection:
        connection.execute("INSERT INTO orders VALUES (7)")
        outcomes = library.module.enqueue_bulk(connection, [EnqueueRequest("receipt", n) for n in range(50)])
        connection.commit()
    assert [job.id for job in reversed(library.jobs())] == [outcome.id for outcome in outcomes]


def test_without_a_transaction_it_refuses_unless_told(library: Library) -> None:
    with closing(library.connect()) as connection:
        if library.module is of_sqlite3:
            connection.isolation_level = None
        else:
            connection.autocommit = True
        with pytest.raises(NoTransaction, match="no transaction is open"):
            library.module.enqueue(connection, EnqueueRequest("receipt"))
        assert library.jobs() == []
        library.module.enqueue(connection, EnqueueRequest("receipt"), autocommit_ok=True)
    assert len(library.jobs()) == 1


def test_a_database_without_our_schema_is_refused(tmp_path: Path, server: Server) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("BEGIN")
        with pytest.raises(SchemaMismatch, match="db create"):
            of_sqlite3.enqueue(connection, EnqueueRequest("receipt"))
    with psycopg.connect(server.new_database()) as other, pytest.raises(SchemaMismatch, match="db create"):
        of_psycopg.enqueue(other, EnqueueRequest("receipt"))


def test_the_connection_keeps_its_ways(tmp_path: Path, server: Server) -> None:
    path, url = tmp_path / "jobs.db", server.new_database()
    asyncio.run(_create(f"sqlite:///{path}"))
    asyncio.run(_create(url))
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        of_sqlite3.enqueue(connection, EnqueueRequest("receipt", dedupe_key="k"))
        assert connection.row_factory is sqlite3.Row
        assert connection.in_transaction
    with psycopg.connect(url, row_factory=dict_row) as other:
        of_psycopg.enqueue(other, EnqueueRequest("receipt", dedupe_key="k"))
        assert other.execute("SELECT 1 AS one").fetchone() == {"one": 1}


def test_two_transactions_on_one_key_the_second_waits_and_finds_it_held(server: Server) -> None:
    url = server.new_database()
    asyncio.run(_create(url))
    answers: list[object] = []
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        mine = of_psycopg.enqueue(first, EnqueueRequest("receipt", dedupe_key="k"))
        waiting = threading.Thread(
            target=lambda: answers.append(of_psycopg.enqueue(second, EnqueueRequest("receipt", dedupe_key="k")))
        )
        waiting.start()
        with psycopg.connect(url, autocommit=True) as looker:
            while not looker.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                assert waiting.is_alive()
        assert answers == []
        first.commit()
        waiting.join(timeout=10)
    (answer,) = answers
    assert isinstance(answer, Deduped)
    assert answer.id == mine.id
