"""What a store does with a request to add a job."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from forge_jobs import limits
from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId, new_id
from forge_jobs.payload import encode_payload
from forge_jobs.storage.error import DedupeConflict, IdReused, InvalidInput, QueueFull
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import Enqueued, JobStatus
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import (
    Stand,
    add,
    add_many,
    all_events,
    bring,
    events_of,
    read,
    read_all,
    run,
    take,
    take_one,
)
from forge_jobs.testing.factories import KIND, QUEUE, make_request


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


PAYLOADS: dict[str, Any] = {
    "null": None,
    "an empty object": {},
    "an empty list": [],
    "an empty text": "",
    "an empty key": {"": 1},
    "keys out of order": {"b": 1, "a": {"z": 1, "y": 2}},
    "the limits of 64 bits": [9223372036854775807, -9223372036854775808],
    "whole numbers beyond 64 bits": [2**63, 2**64, -(2**200), 10**4000],
    "a whole number no double can hold": [9007199254740993],
    "the extremes of doubles": [0.1, 1e-320, 1.7976931348623157e308, 5e-324, -0.0, 1e22],
    "values that databases merge": [True, 1, 1.0, "1", False, 0, 0.0, "0", None, ""],
    "NUL": {"a\0b": "\0"},
    "an emoji": "\U0001f600",
    "text that turns round": "\u202eevil\u2066",
    "two spellings of one letter": "e\u0301 \u00e9",
    "code points that are not characters": "\ufffe\uffff\U0010ffff",
    "control characters": "\x01\x1f\x7f\x80\x9b\r\n\t",
    "SQL": "'; DROP TABLE jobs; --",
    "placeholders": ":now ? %s $1 {0} \\",
    "depth at the limit": _nested(limits.JSON_DEPTH),
    "size at the limit": "x" * (limits.PAYLOAD_MAX_BYTES - 2),
}

BAD_REQUESTS: dict[str, dict[str, Any]] = {
    "a queue name with a comma": {"queue": "a,b"},
    "no queue": {"queue": None},
    "a kind with a newline": {"kind": "send\n"},
    "a payload that is not JSON": {"payload": float("nan")},
    "a payload over the limit": {"payload": "x" * limits.PAYLOAD_MAX_BYTES},
    "a priority out of range": {"priority": 1001},
    "a truth value for a number": {"max_attempts": True},
    "no attempts": {"max_attempts": 0},
    "an empty key": {"dedupe_key": ""},
    "a negative delay": {"delay": -1},
    "two due times": {"delay": 1, "run_at": datetime(2026, 1, 1, tzinfo=UTC)},
    "a time without a zone": {"run_at": datetime(2026, 1, 1)},  # noqa: DTZ001
    "an unknown policy": {"on_conflict": "ignore"},
    "an id that is none": {"id": "42"},
    "too many tags": {"tags": [f"tag{n}" for n in range(17)]},
}


class TestEnqueue:
    async def test_a_new_job_is_pending_due_now_and_was_never_claimed(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        job_id = await add(storage)
        row = await read(storage, job_id)
        assert row.status == JobStatus.PENDING
        assert row.enqueued_at == row.scheduled_at == clock.now()
        assert (row.attempts, row.crashes, row.throttles, row.fence) == (0, 0, 0, 0)
        assert (row.started_at, row.completed_at, row.heartbeat_at, row.expires_at) == (None, None, None, None)
        assert (row.process_id, row.host_id, row.dead_reason, row.last_error) == (None, None, None, None)
        assert (row.cancel_requested_at, row.parent_id, row.dedupe_key, row.tags) == (None, None, None, ())
        assert (row.priority, row.max_attempts) == (0, 5)

    async def test_everything_that_was_asked_for_is_kept(self, storage: Storage, clock: ManualClock) -> None:
        run_at, expires_at = clock.now() + timedelta(hours=1), clock.now() + timedelta(hours=2)
        parent, own = new_id(), new_id()
        request = make_request(
            "resize", {"id": 1}, queue="media", priority=-7, max_attempts=9, dedupe_key="image:1", id=own,
            run_at=run_at, expires_at=expires_at, tags=("blue", "red"), trace={"traceparent": "00-1-2-3"},
        )  # fmt: skip
        assert await storage.jobs.enqueue(request, parent_id=parent) == Enqueued(own)
        detail = await storage.jobs.get(own)
        assert detail is not None
        row = detail.row
        assert (row.id, row.kind, row.queue, row.payload) == (own, "resize", "media", {"id": 1})
        assert (row.priority, row.max_attempts, row.dedupe_key) == (-7, 9, "image:1")
        assert (row.scheduled_at, row.expires_at, row.enqueued_at) == (run_at, expires_at, clock.now())
        assert (row.tags, row.parent_id) == (("blue", "red"), parent)
        assert detail.trace == {"traceparent": "00-1-2-3"}

    async def test_delay_and_ttl_count_from_the_stores_time(self, storage: Storage, clock: ManualClock) -> None:
        clock.advance("7d")
        row = await read(storage, await add(storage, delay=90, ttl=timedelta(minutes=5)))
        assert row.scheduled_at == clock.now() + timedelta(seconds=90)
        assert row.expires_at == clock.now() + timedelta(minutes=5)

    async def test_a_due_time_in_the_past_is_kept_and_the_job_is_ready(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        past = datetime(1970, 1, 1, tzinfo=UTC)
        job_id = await add(storage, run_at=past)
        assert (await read(storage, job_id)).scheduled_at == past
        assert (await take_one(storage)).id == job_id

    async def test_instants_of_any_zone_are_kept_to_the_microsecond(self, storage: Storage) -> None:
        local = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        row = await read(storage, await add(storage, run_at=local))
        assert row.scheduled_at == local
        assert row.scheduled_at.utcoffset() == timedelta(0)

    @pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
    async def test_the_worker_gets_exactly_what_was_enqueued(self, storage: Storage, payload: Any) -> None:
        job_id = await add(storage, payload=payload)
        row, job = await read(storage, job_id), await take_one(storage)
        assert job.payload == row.payload_text == encode_payload(payload)
        assert repr(row.payload) == repr(payload)  # repr tells 1 from 1.0 from True, -0.0 from 0.0, and key order

    @pytest.mark.parametrize("fields", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
    async def test_a_refused_request_leaves_no_trace(self, storage: Storage, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput):
            await storage.jobs.enqueue(make_request(**fields))
        with pytest.raises(InvalidInput):
            await storage.jobs.enqueue_bulk([make_request(), make_request(**fields)])
        assert await read_all(storage) == {}
        assert await storage.queues.list() == []

    async def test_a_queue_gets_its_settings_with_its_first_job(self, storage: Storage) -> None:
        await add(storage, queue="new")
        assert [queue.name for queue in await storage.queues.list()] == ["new"]

    async def test_enqueueing_leaves_a_queues_settings_alone(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE)
        tuned = await storage.queues.change(QUEUE, QueueChange(max_workers=3, retain_done_days=1))
        await add(storage)
        await add_many(storage, 3)
        assert await storage.queues.get(QUEUE) == tuned

    async def test_ids_ascend_in_the_order_of_enqueueing(self, storage: Storage) -> None:
        ids = [await add(storage), *await add_many(storage, 5), await add(storage)]
        assert ids == sorted(set(ids))

    async def test_an_enqueue_is_told_as_an_event(self, storage: Storage) -> None:
        assert await events_of(storage, await add(storage)) == ["enqueued"]

    async def test_concurrent_enqueues_are_all_taken_in(self, storage: Storage) -> None:
        ids = await asyncio.gather(*(add(storage, payload=n) for n in range(200)))
        rows = await read_all(storage)
        assert [rows[job_id].payload for job_id in ids] == list(range(200))

    async def test_a_refused_enqueue_never_fails_its_neighbours(self, storage: Storage) -> None:
        taken = await add(storage, dedupe_key="taken")
        requests = [
            make_request(payload="one"),
            make_request(payload="other content", id=taken),
            make_request(payload="two"),
            make_request(dedupe_key="taken", on_conflict="error"),
            make_request(queue="a,b"),
            make_request(payload="three"),
        ]
        answers = await asyncio.gather(*(storage.jobs.enqueue(r) for r in requests), return_exceptions=True)
        expected = (Enqueued, IdReused, Enqueued, DedupeConflict, InvalidInput, Enqueued)
        assert all(map(isinstance, answers, expected)), answers
        added = {row.payload for row in (await read_all(storage)).values()}
        assert added == {None, "one", "two", "three"}


class TestEnqueueAgain:
    """A caller that lost the answer asks again with the same id."""

    async def test_the_same_id_and_content_is_the_same_job(self, storage: Storage) -> None:
        request = make_request(id=new_id(), dedupe_key="key", payload={"a": 1})
        first, again = await storage.jobs.enqueue(request), await storage.jobs.enqueue(request)
        assert (first, again) == (Enqueued(first.id), Enqueued(first.id, repeated=True))
        assert list(await read_all(storage)) == [first.id]
        assert await events_of(storage, first.id) == ["enqueued"]

    async def test_an_id_in_lower_case_is_the_same_id(self, storage: Storage) -> None:
        job_id = await add(storage)
        again = await storage.jobs.enqueue(make_request(id=job_id.lower()))
        assert again == Enqueued(job_id, repeated=True)

    @pytest.mark.parametrize("stand", Stand)
    async def test_it_is_the_same_job_wherever_it_stands_by_now(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        before = await bring(storage, clock, stand, dedupe_key="key")
        again = await storage.jobs.enqueue(make_request(id=before.id, dedupe_key="key"))
        assert again == Enqueued(before.id, repeated=True)
        assert await read_all(storage) == {before.id: before}

    @pytest.mark.parametrize("policy", ["skip", "replace", "error"])
    async def test_a_repeat_never_conflicts_with_itself(self, storage: Storage, policy: str) -> None:
        request = make_request(id=new_id(), dedupe_key="key", on_conflict=policy, unique_for=60)
        first, again = await storage.jobs.enqueue(request), await storage.jobs.enqueue(request)
        assert (first, again) == (Enqueued(first.id), Enqueued(first.id, repeated=True))
        assert (await read(storage, first.id)).status == JobStatus.PENDING

    async def test_a_superseded_job_is_not_added_again_by_a_late_repeat(self, storage: Storage) -> None:
        request = make_request(id=new_id(), dedupe_key="key", on_conflict="replace")
        await storage.jobs.enqueue(request)
        newer = await add(storage, dedupe_key="key", on_conflict="replace")
        again = await storage.jobs.enqueue(request)
        assert again == Enqueued(JobId(str(request.id)), repeated=True)
        assert (await read(storage, newer)).status == JobStatus.PENDING

    @pytest.mark.parametrize(
        "other",
        [{"kind": "other"}, {"queue": "other"}, {"payload": 1.0}, {"dedupe_key": "other"}, {"dedupe_key": None}],
        ids=["kind", "queue", "payload", "key", "no key"],
    )
    async def test_the_same_id_with_other_content_is_refused(self, storage: Storage, other: dict[str, Any]) -> None:
        content: dict[str, Any] = {"kind": KIND, "queue": QUEUE, "payload": 1, "dedupe_key": "key"}
        job_id = await add(storage, **content)
        before = await read_all(storage)
        with pytest.raises(IdReused) as caught:
            await storage.jobs.enqueue(make_request(id=job_id, **(content | other)))
        assert caught.value.job_id == job_id
        assert await read_all(storage) == before
        assert [queue.name for queue in await storage.queues.list()] == [QUEUE]

    async def test_a_repeat_does_not_compare_what_is_relative_to_the_call(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        job_id = await add(storage, delay=60)
        before = await read(storage, job_id)
        clock.advance(10)
        assert await storage.jobs.enqueue(make_request(id=job_id, delay=60)) == Enqueued(job_id, repeated=True)
        assert await read(storage, job_id) == before

    async def test_concurrent_repeats_make_one_job(self, storage: Storage, neighbour: Storage) -> None:
        request = make_request(id=new_id())
        answers = await asyncio.gather(*(s.jobs.enqueue(request) for s in (storage, neighbour) * 10))
        assert sorted(a.repeated for a in answers if isinstance(a, Enqueued)) == [False] + [True] * 19
        assert len(await read_all(storage)) == 1

    async def test_the_id_of_a_deleted_job_may_come_again(self, storage: Storage) -> None:
        job_id = await add(storage)
        await storage.jobs.delete(job_id)
        assert await storage.jobs.enqueue(make_request("other", id=job_id)) == Enqueued(job_id)


class TestEnqueueBulk:
    async def test_nothing_asked_is_nothing_done(self, storage: Storage) -> None:
        assert await storage.jobs.enqueue_bulk([]) == []
        assert await read_all(storage) == {}

    async def test_answers_come_in_the_order_of_the_requests(self, storage: Storage) -> None:
        known = await add(storage, payload="known")
        held = await add(storage, dedupe_key="held")
        own = new_id()
        answers = await storage.jobs.enqueue_bulk(
            [
                make_request(payload=0),
                make_request(payload="known", id=known),
                make_request(dedupe_key="held"),
                make_request(payload=3, id=own),
            ]
        )
        assert [answer.id for answer in answers[1:]] == [known, held, own]
        assert answers[1] == Enqueued(known, repeated=True)
        assert (await read(storage, answers[0].id)).payload == 0

    async def test_a_large_bulk_is_stored_in_order_with_ascending_ids(self, storage: Storage) -> None:
        answers = await storage.jobs.enqueue_bulk([make_request(payload=n) for n in range(2_500)])
        ids = [answer.id for answer in answers]
        assert ids == sorted(set(ids))
        taken = await take(storage, 1_500) + await take(storage, 1_500)
        assert [job.id for job in taken] == ids
        assert [job.payload for job in taken] == [str(n) for n in range(2_500)]

    async def test_more_requests_than_the_limit_are_refused_whole(self, storage: Storage) -> None:
        with pytest.raises(InvalidInput):
            await storage.jobs.enqueue_bulk([make_request()] * (limits.BULK_REQUESTS + 1))
        assert await read_all(storage) == {}

    async def test_a_reused_id_fails_the_bulk_and_nothing_is_written(self, storage: Storage) -> None:
        job_id = await add(storage)
        before = await read_all(storage)
        with pytest.raises(IdReused):
            await storage.jobs.enqueue_bulk(
                [make_request(queue="other"), make_request("other", id=job_id), make_request()]
            )
        assert await read_all(storage) == before
        assert [queue.name for queue in await storage.queues.list()] == [QUEUE]
        assert [event.job_id for event in await all_events(storage)] == [job_id]

    async def test_one_id_twice_in_a_bulk_is_one_job(self, storage: Storage) -> None:
        request = make_request(id=new_id())
        first, again = await storage.jobs.enqueue_bulk([request, request])
        assert (first, again) == (Enqueued(first.id), Enqueued(first.id, repeated=True))

    async def test_a_repeated_bulk_adds_nothing(self, storage: Storage) -> None:
        bulk = [make_request(id=new_id(), payload=n) for n in range(3)]
        first, again = await storage.jobs.enqueue_bulk(bulk), await storage.jobs.enqueue_bulk(bulk)
        assert again == [Enqueued(answer.id, repeated=True) for answer in first]
        assert len(await read_all(storage)) == 3

    async def test_the_parent_is_recorded_on_every_job(self, storage: Storage) -> None:
        parent = new_id()
        answers = await storage.jobs.enqueue_bulk([make_request(), make_request()], parent_id=parent)
        assert [(await read(storage, answer.id)).parent_id for answer in answers] == [parent, parent]
        assert {job.parent_id for job in await take(storage, 2)} == {parent}


class TestFullQueue:
    async def test_a_full_queue_takes_no_more(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(max_pending=2))
        await add_many(storage, 2)
        clock.advance(2)  # the count may be a second old
        with pytest.raises(QueueFull) as caught:
            await add(storage)
        assert (caught.value.queue, caught.value.max_pending) == (QUEUE, 2)
        with pytest.raises(QueueFull):
            await add_many(storage, 1)
        assert len(await read_all(storage)) == 2
        await add(storage, queue="other")

    async def test_a_full_queue_takes_again_when_there_is_room(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(max_pending=1))
        await add(storage)
        await run(storage, Done())
        clock.advance(2)
        await add(storage)

    async def test_a_repeat_is_answered_though_the_queue_is_full(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(max_pending=1))
        job_id = await add(storage)
        clock.advance(2)
        assert await storage.jobs.enqueue(make_request(id=job_id)) == Enqueued(job_id, repeated=True)
