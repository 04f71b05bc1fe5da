"""A job enqueued in the caller's transaction exists if and only if that transaction commits: with every library, on
every store that it knows."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psycopg
import pytest

from forge_jobs import Deduped, Enqueued, EnqueueRequest, Storage
from forge_jobs.storage.error import DedupeConflict, IdReused, InvalidInput, NoTransaction, QueueFull, SchemaMismatch
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.postgres import Server

from .libraries import LIBRARIES, POSTGRESQL, SQLITE, Caller, Library, Shop

ON_POSTGRESQL = [library for library in LIBRARIES if library.store == POSTGRESQL]


def test_a_commit_brings_the_row_and_the_job(shop: Shop) -> None:
    with shop.open() as caller:
        caller.write(7)
        outcome = caller.enqueue(EnqueueRequest("receipt", {"ä": [1, None, "\x00", "100%"]}, delay=60, tags=["a"]))
        assert isinstance(outcome, Enqueued)
        assert shop.jobs() == []  # nobody sees it yet
        caller.commit()
    (job,) = shop.jobs()
    assert (job.id, job.kind, job.queue, job.status) == (outcome.id, "receipt", "default", "pending")
    assert job.payload_text == '{"\\u00e4":[1,null,"\\u0000","100%"]}'
    assert shop.orders() == [7]


def test_a_job_may_be_the_first_thing_or_all_that_a_transaction_does(shop: Shop) -> None:
    with shop.open() as caller:
        if shop.library.name in ("sqlite3", "aiosqlite"):
            caller.query("BEGIN")  # they open none before a write of the application's
        first = caller.enqueue(EnqueueRequest("receipt", dedupe_key="k"))
        caller.commit()
        caller.write(8)
        caller.rollback()
    with shop.open() as caller:
        if shop.library.name in ("sqlite3", "aiosqlite"):
            caller.query("BEGIN")
        caller.enqueue(EnqueueRequest("receipt"))
        caller.write(9)
        caller.rollback()
    assert [job.id for job in shop.jobs()] == [first.id]
    assert shop.orders() == []


def test_after_a_rollback_neither_ever_existed(shop: Shop) -> None:
    with shop.open() as caller:
        caller.write(7)
        caller.enqueue(EnqueueRequest("receipt", dedupe_key="receipt-7", unique_for=3600))
        caller.rollback()
        caller.write(8)
        again = caller.enqueue(EnqueueRequest("receipt", dedupe_key="receipt-7"))
        assert isinstance(again, Enqueued)  # nor did its key
        caller.commit()
    assert [job.id for job in shop.jobs()] == [again.id]
    assert shop.orders() == [8]


def test_held_keys_and_refusals_leave_the_transaction_as_it_was(shop: Shop) -> None:
    async def bound(storage: Storage) -> None:
        await storage.queues.ensure("narrow", QueueChange(max_pending=1))

    shop.ask(bound)
    with shop.open() as caller:
        caller.write(7)
        first = caller.enqueue(EnqueueRequest("receipt", dedupe_key="k"))
        second = caller.enqueue(EnqueueRequest("receipt", dedupe_key="k"))
        assert isinstance(second, Deduped)
        assert second.id == first.id
        with pytest.raises(DedupeConflict):
            caller.enqueue(EnqueueRequest("receipt", dedupe_key="k", on_conflict="error"))
        with pytest.raises(IdReused):
            caller.enqueue(EnqueueRequest("other", id=first.id))
        with pytest.raises(InvalidInput):
            caller.enqueue(EnqueueRequest("receipt", priority=10**6))
        with pytest.raises(QueueFull):
            caller.enqueue_bulk([EnqueueRequest("receipt", queue="narrow"), EnqueueRequest("receipt", queue="narrow")])
        caller.write(8)
        caller.commit()
    assert [job.id for job in shop.jobs()] == [first.id]
    assert shop.orders() == [7, 8]


def test_a_replaced_job_waits_on_if_the_transaction_rolls_back(shop: Shop) -> None:
    with shop.open() as caller:
        caller.write(7)
        first = caller.enqueue(EnqueueRequest("receipt", dedupe_key="k", unique_for=3600))
        caller.commit()
        caller.write(8)
        replaced = caller.enqueue(EnqueueRequest("receipt", dedupe_key="k", on_conflict="replace"))
        assert isinstance(replaced, Enqueued)
        caller.rollback()
        assert [(job.id, job.status) for job in shop.jobs()] == [(first.id, JobStatus.PENDING)]
        caller.write(9)
        last = caller.enqueue(EnqueueRequest("receipt", dedupe_key="k", on_conflict="replace"))
        caller.commit()
    assert [(job.id, job.status) for job in shop.jobs()] == [
        (last.id, JobStatus.PENDING),
        (first.id, JobStatus.DEAD),
    ]


def test_a_bulk_is_all_or_nothing_and_keeps_its_order(shop: Shop) -> None:
    with shop.open() as caller:
        caller.write(7)
        outcomes = caller.enqueue_bulk([EnqueueRequest("receipt", n) for n in range(50)])
        with pytest.raises(IdReused):
            caller.enqueue_bulk([EnqueueRequest("receipt", 50), EnqueueRequest("other", id=outcomes[0].id)])
        assert caller.enqueue_bulk([]) == []
        caller.commit()
    assert [job.id for job in reversed(shop.jobs())] == [outcome.id for outcome in outcomes]


def test_without_a_transaction_it_refuses_unless_told(shop: Shop) -> None:
    with shop.open() as caller:
        caller.go_autocommit()
        with pytest.raises(NoTransaction, match="no transaction is open"):
            caller.enqueue(EnqueueRequest("receipt"))
        assert shop.jobs() == []
        with pytest.raises(IdReused):
            caller.enqueue_bulk(
                [EnqueueRequest("receipt", id="0" * 26), EnqueueRequest("other", id="0" * 26)], autocommit_ok=True
            )
        assert shop.jobs() == []
        alone = caller.enqueue(EnqueueRequest("receipt"), autocommit_ok=True)
        assert [job.id for job in shop.jobs()] == [alone.id]


def test_a_database_without_our_schema_is_refused(library: Library, tmp_path: Path, server: Server) -> None:
    url = f"sqlite:///{tmp_path}/other.db" if library.store == SQLITE else server.new_database()
    with contextlib.closing(library.connect(url)) as caller:
        caller.query("CREATE TABLE orders (id integer)")
        caller.write(7)
        with pytest.raises(SchemaMismatch, match="db create"):
            caller.enqueue(EnqueueRequest("receipt"))
        caller.commit()
        assert len(caller.query("SELECT id FROM orders")) == 1


def test_the_connection_keeps_its_ways(shop: Shop) -> None:
    with shop.open() as caller:
        before = _ways(caller, shop.library)
        caller.write(7)
        caller.enqueue(EnqueueRequest("receipt", dedupe_key="k", unique_for=60))
        with pytest.raises(DedupeConflict):
            caller.enqueue(EnqueueRequest("receipt", dedupe_key="k", on_conflict="error"))
        assert _ways(caller, shop.library) == before
        caller.commit()


def _ways(caller: Caller, library: Library) -> object:
    """Settings that the application may have made, the kind of its rows, and locks of no transaction."""
    if library.store == SQLITE:
        kept = getattr(caller.target, "isolation_level", None), getattr(caller.target, "row_factory", None)
        return kept, [type(row) for row in caller.query("SELECT 1 AS one")], caller.query("PRAGMA synchronous")[0][0]
    names = "search_path", "lock_timeout", "statement_timeout", "transaction_isolation", "timezone", "role"
    (row,) = caller.query("SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in names))
    return type(row), list(row), getattr(caller.target, "autocommit", None), getattr(caller.target, "row_factory", None)


def test_a_savepoint_takes_its_job_away_and_keeps_the_rest(shop: Shop) -> None:
    with shop.open() as caller:
        caller.write(7)
        kept = caller.enqueue(EnqueueRequest("receipt", "kept"))
        with pytest.raises(LookupError), caller.savepoint():
            caller.write(8)
            caller.enqueue(EnqueueRequest("receipt", "undone", dedupe_key="k"))
            raise LookupError
        with caller.savepoint():
            inner = caller.enqueue(EnqueueRequest("receipt", "inner", dedupe_key="k"))
        caller.commit()
    assert isinstance(inner, Enqueued)
    assert [job.id for job in shop.jobs()] == [inner.id, kept.id]
    assert shop.orders() == [7]


@pytest.mark.parametrize("library", ON_POSTGRESQL, ids=str)
def test_two_transactions_on_one_key_the_second_waits_and_finds_it_held(shop: Shop) -> None:
    answers: list[object] = []

    def second() -> None:
        with shop.open() as caller:
            caller.write(8)
            answers.append(caller.enqueue(EnqueueRequest("receipt", dedupe_key="k")))
            caller.commit()

    with shop.open() as caller, psycopg.connect(shop.url, autocommit=True) as looker:
        caller.write(7)
        mine = caller.enqueue(EnqueueRequest("receipt", dedupe_key="k"))
        waiting = threading.Thread(target=second)
        waiting.start()
        while not looker.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone():
            assert waiting.is_alive()
        assert answers == []
        caller.commit()
        waiting.join(timeout=20)
    (answer,) = answers
    assert isinstance(answer, Deduped)
    assert answer.id == mine.id
    assert shop.orders() == [7, 8]
