"""What only one library has: its settings, its forms of a call, its ways to be misused."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import psycopg
import pytest
from django.db import connections, transaction
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from forge_jobs import ConfigError, Enqueued, EnqueueRequest
from forge_jobs.integrations import django as of_django
from forge_jobs.integrations import psycopg as of_psycopg
from forge_jobs.integrations import sqlalchemy as of_sqlalchemy
from forge_jobs.integrations import sqlite3 as of_sqlite3

from .libraries import LIBRARIES, DjangoCaller, Library, Shop

ON_DJANGO = [library for library in LIBRARIES if library.name.startswith("django")]
with_django = pytest.mark.parametrize("library", ON_DJANGO, ids=str)


def test_a_cursor_factory_of_the_application_is_left_alone(database: str) -> None:
    with psycopg.connect(database, cursor_factory=psycopg.RawCursor) as connection:
        outcome = of_psycopg.enqueue(connection, EnqueueRequest("receipt", dedupe_key="k"))
        assert isinstance(outcome, Enqueued)
        assert connection.execute("SELECT $1::int", [1]).fetchone() == (1,)  # placeholders that only it has


def test_a_schema_that_is_no_name_is_refused_before_it_is_part_of_a_statement(database: str) -> None:
    with psycopg.connect(database) as connection, pytest.raises(ConfigError, match="schema"):
        of_psycopg.enqueue(connection, EnqueueRequest("receipt"), schema="forge; DROP SCHEMA forge")


def test_sqlite_is_taken_to_write_before_anything_is_read(file: Path) -> None:
    """A deferred transaction that reads first is refused when somebody commits before its first write."""
    said: list[str] = []
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("BEGIN")
        connection.set_trace_callback(said.append)
        of_sqlite3.enqueue(connection, EnqueueRequest("receipt", dedupe_key="k"))
        assert said[0].startswith("UPDATE forge_schema")
        connection.rollback()
        connection.execute("BEGIN")
        of_sqlite3.enqueue_bulk(connection, [])
        with (
            contextlib.closing(sqlite3.connect(file, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")


def test_a_scoped_session_stands_for_its_session(file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}")
    registry = scoped_session(sessionmaker(engine))
    told: list[list[str]] = []
    outcome = of_sqlalchemy.enqueue(registry, EnqueueRequest("receipt"), wake=told.append)
    assert isinstance(outcome, Enqueued)
    registry.commit()
    assert told == [["default"]]
    registry.remove()
    engine.dispose()


def test_something_that_is_no_session_is_refused(file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}")
    with pytest.raises(ConfigError, match="Engine is neither a Session nor a Connection"):
        of_sqlalchemy.enqueue(engine, EnqueueRequest("receipt"))  # type: ignore[call-overload]
    engine.dispose()


def test_rows_of_the_orm_and_jobs_share_the_commit_of_a_session(file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}")
    with Session(engine) as session, session.begin():
        outcome = of_sqlalchemy.enqueue(session, EnqueueRequest("receipt"))
    engine.dispose()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT id FROM forge_jobs").fetchall() == [(outcome.id,)]


@with_django
def test_django_takes_an_alias_or_a_connection(shop: Shop) -> None:
    with shop.open(), transaction.atomic(using=DjangoCaller.alias):
        by_alias = of_django.enqueue(EnqueueRequest("receipt"), using=DjangoCaller.alias)
        by_connection = of_django.enqueue(connections[DjangoCaller.alias], EnqueueRequest("receipt"))
        (in_bulk,) = of_django.enqueue_bulk([EnqueueRequest("receipt")], using=DjangoCaller.alias)
    assert [job.id for job in reversed(shop.jobs())] == [by_alias.id, by_connection.id, in_bulk.id]


@with_django
def test_a_broken_atomic_block_refuses_jobs_as_it_refuses_queries(shop: Shop) -> None:
    with shop.open(), transaction.atomic(using=DjangoCaller.alias):
        transaction.set_rollback(True, using=DjangoCaller.alias)
        with pytest.raises(transaction.TransactionManagementError):
            of_django.enqueue(EnqueueRequest("receipt"), using=DjangoCaller.alias)
    assert shop.jobs() == []


@with_django
def test_without_autocommit_the_job_waits_for_djangos_commit(shop: Shop) -> None:
    with shop.open():
        transaction.set_autocommit(False, using=DjangoCaller.alias)
        of_django.enqueue(EnqueueRequest("receipt"), using=DjangoCaller.alias)
        transaction.rollback(using=DjangoCaller.alias)
        assert shop.jobs() == []
        kept = of_django.enqueue(EnqueueRequest("receipt"), using=DjangoCaller.alias)
        transaction.commit(using=DjangoCaller.alias)
        assert [job.id for job in shop.jobs()] == [kept.id]


@pytest.mark.parametrize("library", [library for library in ON_DJANGO if library.store == "postgresql"], ids=str)
def test_errors_of_the_database_are_djangos(library: Library, shop: Shop) -> None:
    from django.db.utils import OperationalError

    with (
        psycopg.connect(shop.url) as holder,
        shop.open(),
        pytest.raises(OperationalError, match="lock timeout"),
        transaction.atomic(using=DjangoCaller.alias),
    ):
        of_psycopg.enqueue(holder, EnqueueRequest("receipt", dedupe_key="k"))
        connections[DjangoCaller.alias].cursor().execute("SET LOCAL lock_timeout = '50ms'")
        of_django.enqueue(EnqueueRequest("receipt", dedupe_key="k"), using=DjangoCaller.alias)
