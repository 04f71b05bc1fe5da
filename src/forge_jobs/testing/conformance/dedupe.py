"""At most one job per key is waiting, running or between retries."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage.error import DedupeConflict
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import CancelOutcome, DeleteOutcome
from forge_jobs.storage.types.finalize import Done, FinalizeOutcome, Released
from forge_jobs.storage.types.job import DeadReason, Deduped, Enqueued, JobStatus
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import (
    LONG_SILENCE,
    STALE,
    Stand,
    add,
    all_events,
    bring,
    events_of,
    read,
    read_all,
    run,
    settle,
    take_one,
)
from forge_jobs.testing.factories import QUEUE, make_dead, make_failed, make_request, make_throttled

KEY = "invoice:1"
HELD = [stand for stand in Stand if not stand.is_finished]
FREE = [stand for stand in Stand if stand.is_finished]


class TestDedupe:
    @pytest.mark.parametrize("stand", HELD)
    async def test_a_held_key_lets_no_second_job_in(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        holder = await bring(storage, clock, stand, dedupe_key=KEY)
        before = await all_events(storage)
        answer = await storage.jobs.enqueue(make_request(dedupe_key=KEY))
        assert answer == Deduped(holder.id, JobStatus(holder.status))
        assert await read_all(storage) == {holder.id: holder}
        assert await all_events(storage) == before

    @pytest.mark.parametrize("stand", FREE)
    async def test_a_finished_job_frees_its_key(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        before = await bring(storage, clock, stand, dedupe_key=KEY)
        await add(storage, dedupe_key=KEY)
        assert await read(storage, before.id) == before

    @pytest.mark.parametrize(
        "outcome", [make_failed(), make_throttled(), Released()], ids=["failed", "throttled", "released"]
    )
    async def test_a_job_that_will_run_again_keeps_its_key(self, storage: Storage, outcome: FinalizeOutcome) -> None:
        holder = await add(storage, dedupe_key=KEY)
        await run(storage, outcome)
        answer = await storage.jobs.enqueue(make_request(dedupe_key=KEY))
        assert answer.id == holder

    async def test_a_revived_job_keeps_its_key(self, storage: Storage, clock: ManualClock) -> None:
        holder = await bring(storage, clock, Stand.RUNNING, dedupe_key=KEY)
        clock.advance(LONG_SILENCE)
        await storage.jobs.revive_stale(STALE)
        assert await storage.jobs.enqueue(make_request(dedupe_key=KEY)) == Deduped(holder.id, JobStatus.FAILED)

    async def test_a_key_counts_across_queues_and_kinds(self, storage: Storage) -> None:
        holder = await add(storage, dedupe_key=KEY)
        answer = await storage.jobs.enqueue(make_request("other", queue="other", dedupe_key=KEY))
        assert answer == Deduped(holder, JobStatus.PENDING)

    async def test_keys_are_compared_byte_for_byte(self, storage: Storage) -> None:
        keys = ["a", "A", "a ", "ａ", "e\u0301", "\u00e9", "ß", "ss", "%", "_", "k" * 255]
        for key in keys:
            await add(storage, dedupe_key=key)
        assert sorted(str(row.dedupe_key) for row in (await read_all(storage)).values()) == sorted(keys)

    async def test_jobs_without_a_key_never_meet(self, storage: Storage) -> None:
        assert await add(storage) != await add(storage)

    @pytest.mark.parametrize("stand", [Stand.PENDING, Stand.FAILED])
    async def test_a_replacement_supersedes_a_waiting_holder(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        holder = await bring(storage, clock, stand, dedupe_key=KEY)
        replacement = await add(storage, dedupe_key=KEY, on_conflict="replace")
        old = await read(storage, holder.id)
        assert (old.status, old.dead_reason, old.completed_at) == (
            JobStatus.DEAD, DeadReason.SUPERSEDED, clock.now(),
        )  # fmt: skip
        assert (old.last_error, old.attempts, old.fence) == (holder.last_error, holder.attempts, holder.fence)
        assert (await events_of(storage, holder.id))[-1] == "superseded"
        answer = await storage.jobs.enqueue(make_request(dedupe_key=KEY))
        assert answer == Deduped(replacement, JobStatus.PENDING)

    @pytest.mark.parametrize("stand", [stand for stand in Stand if stand.is_running])
    async def test_a_running_holder_is_not_interrupted_by_a_replacement(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        holder = await bring(storage, clock, stand, dedupe_key=KEY)
        answer = await storage.jobs.enqueue(make_request(dedupe_key=KEY, on_conflict="replace"))
        assert answer == Deduped(holder.id, JobStatus.IN_PROGRESS)
        assert await read_all(storage) == {holder.id: holder}

    @pytest.mark.parametrize("stand", HELD)
    async def test_a_caller_may_ask_for_an_error(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        holder = await bring(storage, clock, stand, dedupe_key=KEY)
        with pytest.raises(DedupeConflict) as caught:
            await storage.jobs.enqueue(make_request(dedupe_key=KEY, on_conflict="error"))
        assert (caught.value.key, caught.value.existing_id) == (KEY, holder.id)
        assert await read_all(storage) == {holder.id: holder}

    @pytest.mark.parametrize("policy", ["skip", "replace", "error"])
    async def test_every_policy_takes_a_free_key(self, storage: Storage, policy: str) -> None:
        await add(storage, dedupe_key=KEY, on_conflict=policy)

    async def test_a_race_for_a_key_has_one_winner_and_no_error(self, storage: Storage, neighbour: Storage) -> None:
        answers = await asyncio.gather(
            *(s.jobs.enqueue(make_request(dedupe_key=KEY)) for s in (storage, neighbour) * 10)
        )
        (winner,) = [answer.id for answer in answers if isinstance(answer, Enqueued)]
        assert [answer for answer in answers if isinstance(answer, Deduped)] == [
            Deduped(winner, JobStatus.PENDING)
        ] * 19
        assert list(await read_all(storage)) == [winner]

    async def test_a_race_of_replacements_leaves_one_holder(self, storage: Storage, neighbour: Storage) -> None:
        answers = await asyncio.gather(
            *(s.jobs.enqueue(make_request(dedupe_key=KEY, on_conflict="replace")) for s in (storage, neighbour) * 5)
        )
        assert all(isinstance(answer, Enqueued) for answer in answers)
        reasons = [row.dead_reason for row in (await read_all(storage)).values()]
        assert sorted(map(str, reasons)) == ["None"] + ["superseded"] * 9

    async def test_an_enqueue_racing_its_holders_end_is_in_or_deduped(self, storage: Storage) -> None:
        for _ in range(20):
            await storage.jobs.enqueue(make_request(dedupe_key=KEY))
            holder = await take_one(storage)
            _, answer = await asyncio.gather(
                settle(storage, holder, Done()), storage.jobs.enqueue(make_request(dedupe_key=KEY))
            )
            assert isinstance(answer, Enqueued) or answer == Deduped(holder.id, JobStatus.IN_PROGRESS)
            active = [row for row in (await read_all(storage)).values() if row.status != JobStatus.DONE]
            assert len(active) == isinstance(answer, Enqueued)


class TestDedupeInBulk:
    async def test_the_second_of_two_equal_keys_is_deduped(self, storage: Storage) -> None:
        first, second = await storage.jobs.enqueue_bulk([make_request(dedupe_key=KEY)] * 2)
        assert second == Deduped(first.id, JobStatus.PENDING)
        assert list(await read_all(storage)) == [first.id]

    async def test_the_last_of_two_replacements_holds_the_key(self, storage: Storage) -> None:
        old = await add(storage, dedupe_key=KEY)
        first, second = await storage.jobs.enqueue_bulk([make_request(dedupe_key=KEY, on_conflict="replace")] * 2)
        rows = await read_all(storage)
        assert [rows[job_id].dead_reason for job_id in (old, first.id, second.id)] == [
            "superseded", "superseded", None,
        ]  # fmt: skip

    async def test_a_conflict_that_is_an_error_fails_the_whole_bulk(self, storage: Storage) -> None:
        held = make_request(dedupe_key=KEY, on_conflict="error")
        with pytest.raises(DedupeConflict):
            await storage.jobs.enqueue_bulk([make_request(queue="other"), held, held])
        assert await read_all(storage) == {}
        assert await storage.queues.list() == []
        assert await all_events(storage) == []


class TestUniqueFor:
    @pytest.mark.parametrize("outcome", [Done(), make_dead()], ids=["done", "dead"])
    async def test_the_key_is_held_beyond_the_end_until_it_lapses(
        self, storage: Storage, clock: ManualClock, outcome: FinalizeOutcome
    ) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        job = await run(storage, outcome)
        clock.advance("59m")
        status = (await read(storage, job.id)).status
        assert await storage.jobs.enqueue(make_request(dedupe_key=KEY)) == Deduped(holder, JobStatus(status))
        clock.advance("2m")
        await add(storage, dedupe_key=KEY)

    async def test_the_key_is_held_while_the_job_lives_though_the_time_is_over(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=1)
        clock.advance("1h")
        assert await storage.jobs.enqueue(make_request(dedupe_key=KEY)) == Deduped(holder, JobStatus.PENDING)

    async def test_the_time_counts_from_the_enqueue(self, storage: Storage, clock: ManualClock) -> None:
        await add(storage, dedupe_key=KEY, unique_for=timedelta(hours=1), delay=timedelta(minutes=50))
        clock.advance("55m")
        await run(storage, Done())
        clock.advance("6m")
        await add(storage, dedupe_key=KEY)

    async def test_the_key_is_held_though_retention_removed_the_job(self, storage: Storage, clock: ManualClock) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(retain_done_days=0))
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        await run(storage, Done())
        clock.advance(1)
        await storage.maintenance.cleanup()
        assert await storage.jobs.get(holder) is None
        answer = await storage.jobs.enqueue(make_request(dedupe_key=KEY))
        assert isinstance(answer, Deduped)
        assert answer.id == holder
        clock.advance("2h")
        await storage.maintenance.cleanup()
        await add(storage, dedupe_key=KEY)

    async def test_deleting_the_finished_holder_frees_the_key(self, storage: Storage) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        await run(storage, Done())
        assert await storage.jobs.delete(holder) is DeleteOutcome.DELETED
        await add(storage, dedupe_key=KEY)

    async def test_cancelling_the_waiting_holder_frees_the_key(self, storage: Storage) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        assert await storage.jobs.cancel(holder) is CancelOutcome.CANCELLED
        await add(storage, dedupe_key=KEY)

    async def test_cancelling_the_running_holder_frees_the_key_when_it_stops(self, storage: Storage) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        job = await take_one(storage)
        await storage.jobs.cancel(holder)
        await settle(storage, job, make_failed())
        assert (await read(storage, holder)).dead_reason == DeadReason.CANCELLED
        await add(storage, dedupe_key=KEY)

    async def test_a_finished_holder_is_not_replaced(self, storage: Storage) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        await run(storage, Done())
        answer = await storage.jobs.enqueue(make_request(dedupe_key=KEY, on_conflict="replace"))
        assert answer == Deduped(holder, JobStatus.DONE)
        assert (await read(storage, holder)).status == JobStatus.DONE

    async def test_a_waiting_holder_is_replaced_and_the_replacement_is_held(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        await add(storage, dedupe_key=KEY, unique_for=3600)
        clock.advance("30m")
        replacement = await add(storage, dedupe_key=KEY, on_conflict="replace", unique_for=3600)
        await run(storage, Done())
        clock.advance("45m")
        assert await storage.jobs.enqueue(make_request(dedupe_key=KEY)) == Deduped(replacement, JobStatus.DONE)

    async def test_a_finished_holder_is_an_error_to_who_asked_for_one(self, storage: Storage) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        await run(storage, Done())
        with pytest.raises(DedupeConflict) as caught:
            await storage.jobs.enqueue(make_request(dedupe_key=KEY, on_conflict="error"))
        assert caught.value.existing_id == holder

    async def test_bulk_sees_finished_holders_too(self, storage: Storage) -> None:
        holder = await add(storage, dedupe_key=KEY, unique_for=3600)
        await run(storage, Done())
        (answer,) = await storage.jobs.enqueue_bulk([make_request(dedupe_key=KEY)])
        assert answer == Deduped(holder, JobStatus.DONE)
