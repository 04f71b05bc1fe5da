"""The verbs of the blocking façade say what those of the store say."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_type

import pytest

from forge_jobs import (
    ConfigError,
    DedupeConflict,
    Deduped,
    Enqueued,
    EnqueueOutcome,
    EnqueueRequest,
    HandlerRegistry,
    IdReused,
    InvalidInput,
    KindPrefixRouter,
    SchemaMismatch,
    StorageError,
    StoreConfig,
    StoreUnavailable,
    SyncQueue,
)
from forge_jobs.ids import new_id
from forge_jobs.storage.types.answers import CancelOutcome, NotRetryable, Retried, RetryOutcome
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.job import JobDetail, JobFilter, Page
from forge_jobs.testing import ManualClock

EVERYTHING = JobFilter()


def test_a_job_is_enqueued_read_and_counted(queue: SyncQueue) -> None:
    outcome = queue.enqueue(EnqueueRequest("mail", {"to": "a@example.org"}))
    assert_type(outcome, EnqueueOutcome)
    assert isinstance(outcome, Enqueued)
    detail = queue.get(outcome.id)
    assert_type(detail, JobDetail | None)
    assert detail is not None
    assert (detail.row.kind, detail.row.payload, detail.row.status) == ("mail", {"to": "a@example.org"}, "pending")
    page = queue.list_jobs(EVERYTHING)
    assert_type(page, Page)
    assert [row.id for row in page.items] == [outcome.id]
    assert queue.count(EVERYTHING) == {"pending": 1}
    assert queue.get(new_id()) is None
    assert [blocker.code for blocker in queue.explain(outcome.id)] == ["queue_unserved"]


def test_a_bulk_is_one_transaction_with_outcomes_in_order(queue: SyncQueue) -> None:
    requests = [EnqueueRequest("mail", n, dedupe_key="same" if n in (3, 7) else None) for n in range(10)]
    outcomes = queue.enqueue_bulk(requests)
    assert_type(outcomes, list[EnqueueOutcome])
    assert [type(outcome) for outcome in outcomes] == [Enqueued] * 7 + [Deduped] + [Enqueued] * 2
    assert outcomes[7].id == outcomes[3].id
    with pytest.raises(InvalidInput, match="request 1"):
        queue.enqueue_bulk([EnqueueRequest("mail"), EnqueueRequest("not a name")])
    assert queue.count(EVERYTHING) == {"pending": 9}
    assert queue.enqueue_bulk([]) == []


def test_what_a_request_leaves_out_is_filled_in_as_by_a_worker(url: str) -> None:
    handlers = HandlerRegistry()

    @handlers.handler("report", queue="slow", max_attempts=2)
    async def report(payload: object) -> None: ...

    with SyncQueue(url, router=KindPrefixRouter(), handlers=handlers) as queue:
        requests = [
            EnqueueRequest("gh_refresh"),
            EnqueueRequest("other"),
            EnqueueRequest("report"),
            EnqueueRequest("report", queue="fast", max_attempts=9),
        ]
        for outcomes in ([queue.enqueue(request) for request in requests], queue.enqueue_bulk(requests)):
            details = [queue.get(outcome.id) for outcome in outcomes]
            assert [(d.row.queue, d.row.max_attempts) for d in details if d is not None] == [
                ("gh", 5), ("default", 5), ("slow", 2), ("fast", 9),
            ]  # fmt: skip


def test_a_repeat_of_an_id_is_the_same_job(queue: SyncQueue) -> None:
    order = EnqueueRequest("order", 1, id=new_id())
    first, again = queue.enqueue(order), queue.enqueue(order)
    assert (first, again) == (Enqueued(first.id), Enqueued(first.id, repeated=True))
    with pytest.raises(IdReused):
        queue.enqueue(EnqueueRequest("order", 2, id=order.id))


def test_cancel_and_retry_answer_as_the_store_does_and_are_audited(queue: SyncQueue) -> None:
    job_id = queue.enqueue(EnqueueRequest("mail")).id
    cancelled, retried = queue.cancel(job_id), queue.retry(job_id, actor=Actor(name="ada", surface="web"))
    assert_type(cancelled, CancelOutcome)
    assert_type(retried, RetryOutcome)
    assert (cancelled, retried) == (CancelOutcome.CANCELLED, Retried())
    assert queue.retry(new_id()) == NotRetryable(None)
    assert queue.cancel(new_id()) == CancelOutcome.NOT_FOUND
    acts = queue._store.call(lambda storage: storage.audit.list())
    assert ("job.retry", Actor(name="ada", surface="web")) in [(act.action, act.actor) for act in acts]


def test_a_job_enqueued_by_others_may_be_woken_for(queue: SyncQueue) -> None:
    woken: list[frozenset[str] | None] = []

    async def listen(storage: Any) -> Callable[[], None]:
        stop: Callable[[], None] = storage.subscribe(new_id(), woken.append)
        return stop

    async def stop_listening(storage: Any) -> None:
        stop()

    stop = queue._store.call(listen)
    queue.wake(["mail", "report"])
    queue._store.call(stop_listening)
    assert frozenset({"mail", "report"}) in woken


def test_errors_are_those_of_the_store_and_show_where_they_come_from(queue: SyncQueue) -> None:
    holder = queue.enqueue(EnqueueRequest("mail", dedupe_key="k")).id
    with pytest.raises(DedupeConflict) as caught:
        queue.enqueue(EnqueueRequest("mail", dedupe_key="k", on_conflict="error"))
    assert (caught.value.key, caught.value.existing_id) == ("k", holder)
    with pytest.raises(InvalidInput) as refused:
        queue.enqueue(EnqueueRequest("mail", priority=5_000))
    assert refused.value.field == "priority"
    frames = [frame.name for frame in traceback.extract_tb(refused.value.__traceback__)]
    assert frames[0] == "test_errors_are_those_of_the_store_and_show_where_they_come_from"
    assert frames[1] == "enqueue"
    assert frames.index("check_request") > frames.index("call")


@pytest.mark.parametrize(
    "verb",
    [
        lambda queue: queue.__enter__(),
        lambda queue: queue.enqueue(EnqueueRequest("mail")),
        lambda queue: queue.enqueue_bulk([EnqueueRequest("mail")]),
        lambda queue: queue.get(new_id()),
        lambda queue: queue.list_jobs(EVERYTHING),
        lambda queue: queue.count(EVERYTHING),
        lambda queue: queue.retry(new_id()),
        lambda queue: queue.cancel(new_id()),
        lambda queue: queue.wait(new_id()),
        lambda queue: queue.wake(),
        lambda queue: queue.close(),
    ],
)
async def test_every_method_is_refused_where_an_event_loop_runs_but_not_in_a_thread_of_it(
    url: str, verb: Callable[[SyncQueue], object]
) -> None:
    queue = SyncQueue(url)
    with pytest.raises(ConfigError, match="open_storage"):
        verb(queue)
    assert isinstance(await asyncio.to_thread(queue.enqueue, EnqueueRequest("mail")), Enqueued)
    await asyncio.to_thread(queue.close)


def test_it_is_opened_by_its_first_call_or_by_with(url: str, database: Path) -> None:
    queue = SyncQueue(url)
    assert not database.exists()
    queue.count(EVERYTHING)
    assert database.exists()
    queue.close()
    database.unlink()
    with SyncQueue(url):
        assert database.exists()


def test_closing_twice_is_harmless_and_a_closed_one_is_refused(queue: SyncQueue) -> None:
    queue.close()  # never opened
    with pytest.raises(StoreUnavailable, match="closed"):
        queue.enqueue(EnqueueRequest("mail"))
    with pytest.raises(StoreUnavailable, match="closed"), queue:
        pass
    queue.close()


def test_a_closed_one_that_was_used_is_refused_and_its_jobs_are_there(url: str) -> None:
    with SyncQueue(url) as queue:
        job_id = queue.enqueue(EnqueueRequest("mail")).id
    queue.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        queue.get(job_id)
    with SyncQueue(url) as again:
        assert again.get(job_id) is not None


def test_a_store_that_cannot_be_opened_is_known_at_once_and_may_be_opened_later(tmp_path: Path) -> None:
    queue = SyncQueue(f"sqlite:///{tmp_path}/missing/jobs.db")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="does not exist"):
            queue.enqueue(EnqueueRequest("mail"))
    with pytest.raises(StoreUnavailable, match="does not exist"), queue:
        pass
    (tmp_path / "missing").mkdir()
    assert isinstance(queue.enqueue(EnqueueRequest("mail")), Enqueued)
    queue.close()


def test_nothing_is_created_unless_allowed(database: Path, url: str) -> None:
    with pytest.raises(StoreUnavailable, match="there is no database"), SyncQueue(url, create=False):
        pass
    database.write_bytes(b"")
    with pytest.raises(SchemaMismatch), SyncQueue(url, create=False):
        pass


def test_an_error_of_opening_is_of_the_same_class(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StorageError), SyncQueue(f"sqlite:///{folder}"):
        pass
    with pytest.raises(ConfigError), SyncQueue("nosql://there"):
        pass


def test_options_of_the_store_are_passed_on(url: str) -> None:
    clock = ManualClock()
    with SyncQueue(url, config=StoreConfig(payload_max=10), clock=clock) as queue:
        with pytest.raises(InvalidInput, match="10"):
            queue.enqueue(EnqueueRequest("mail", "x" * 20))
        job_id = queue.enqueue(EnqueueRequest("mail", delay=timedelta(minutes=1))).id
        detail = queue.get(job_id)
        assert detail is not None
        assert detail.row.scheduled_at == clock.now() + timedelta(minutes=1)


def test_a_store_in_memory_lasts_as_long_as_its_queue() -> None:
    with SyncQueue("sqlite:///:memory:") as queue, SyncQueue("sqlite:///:memory:") as other:
        queue.enqueue(EnqueueRequest("mail"))
        assert (queue.count(EVERYTHING), other.count(EVERYTHING)) == ({"pending": 1}, {})


def test_its_name_keeps_the_password() -> None:
    assert repr(SyncQueue("postgresql://me:secret@host/jobs")) == "SyncQueue('postgresql://me:***@host/jobs')"
