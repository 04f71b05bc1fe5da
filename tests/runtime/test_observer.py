"""What a process did is counted, measured and told to hooks, without any exporter."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from forge_jobs import Dead, EnqueueRequest, Failed, JobCtx, Throttled, open_storage
from forge_jobs.clock import ManualClock
from forge_jobs.observe import COUNTS, HISTOGRAMS, KINDS, LABEL_SETS, Event, Histogram, Observer
from forge_jobs.storage.error import Busy
from forge_jobs.storage.types.finalize import Done, FinalizeOutcome, Released
from forge_jobs.testing.cluster import until
from forge_jobs.testing.conformance.arrange import LONG_SILENCE, STALE, add, add_many, run, settle, take
from forge_jobs.testing.factories import KIND, QUEUE, make_dead, make_failed, make_request, make_throttled

from .world import World

JOB = (QUEUE, KIND)


class TestCounts:
    async def test_each_way_of_a_job_is_counted(self, tmp_path: Path) -> None:
        clock = ManualClock()
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as storage:
            await add_many(storage, 6)
            jobs = await take(storage, 6)
            outcomes: tuple[FinalizeOutcome, ...] = (
                Done(),
                make_failed(),
                make_dead(),
                make_throttled(cool_down=False),
                Released(),
            )
            for job, outcome in zip(jobs, outcomes, strict=False):
                await settle(storage, job, outcome)
            clock.advance(LONG_SILENCE)
            await storage.jobs.revive_stale(STALE)
            await storage.jobs.enqueue(make_request(dedupe_key="k"))
            await storage.jobs.enqueue(make_request(dedupe_key="k"))
            seen = storage.observer
            assert seen.counts("enqueued") == {JOB: 7}
            assert seen.counts("deduped") == {JOB: 1}
            assert seen.counts("started") == {JOB: 6}
            for name in ("completed", "throttled", "released", "crashed"):
                assert seen.counts(name) == {JOB: 1}, name
            assert seen.counts("failed_attempts") == {(*JOB, "failed"): 1, (*JOB, "rejected"): 1}
            assert seen.counts("dead") == {(*JOB, "rejected"): 1}
            assert seen.counts("claims") == {("jobs",): 1}

    async def test_times_of_a_job_are_measured(self, tmp_path: Path) -> None:
        clock = ManualClock()
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as storage:
            await add(storage)
            clock.advance(2)
            (job,) = await take(storage)
            clock.advance(3)
            await settle(storage, job, Done())
            found = {name: storage.observer.histograms(name) for name in HISTOGRAMS}
            sums = {name: found[name][JOB].sum for name in ("wait_seconds", "run_seconds", "total_seconds")}
            assert sums == {"wait_seconds": 2.0, "run_seconds": 3.0, "total_seconds": 5.0}
            assert found["store_op_seconds"][("claim",)].count == 1
            assert found["claim_seconds"][()].count == found["settle_seconds"][()].count == 1
            assert found["batch_size"][("settle",)].sum == 1
            assert found["enqueue_seconds"][()].sum > 0

    async def test_an_error_of_the_store_is_counted_with_its_class(self, hasty_world: World) -> None:
        with hasty_world.locked(), pytest.raises(Busy):
            await hasty_world.storage.jobs.enqueue(EnqueueRequest("k", queue="q"))
        assert hasty_world.storage.observer.counts("store_errors") == {("enqueue", "Busy"): 1}

    async def test_the_runtime_counts_what_the_store_does_not_see(self, world: World) -> None:
        @world.handlers.handler("slow", timeout=0.02)
        async def slow(ctx: JobCtx) -> None:
            await ctx.cancel.wait()
            await until(lambda: False, within_s=5)

        await world.work()
        await world.when(await world.put("slow", max_attempts=1), "dead")
        assert world.storage.observer.counts("timeouts") == {("default", "slow"): 1}

    def test_kinds_beyond_the_limit_are_counted_together(self) -> None:
        observer = Observer()
        for number in range(KINDS + 20):
            observer.count("started", "q", f"kind-{number}")
            observer.measure("wait_seconds", 1, "q", f"kind-{number}")
        assert observer.counts("started")[("q", "other")] == 20
        assert observer.histograms("wait_seconds")[("q", "other")].count == 20
        assert len(observer.counts("started")) == KINDS + 1

    def test_label_sets_of_a_family_are_bounded(self) -> None:
        observer = Observer()
        for number in range(LABEL_SETS + 5):
            observer.count("cron_fired", f"schedule-{number}")
        assert observer.counts("cron_fired")[("other",)] == 5

    def test_every_family_takes_its_own_labels(self) -> None:
        observer = Observer()
        for counted in COUNTS.values():
            observer.count(counted.name, *counted.labels)
            assert observer.counts(counted.name) == {counted.labels: 1}
        for measured in HISTOGRAMS.values():
            observer.measure(measured.name, 1, *measured.labels)
            assert observer.histograms(measured.name)[measured.labels].count == 1

    def test_a_value_on_a_bound_is_within_it(self) -> None:
        histogram = Histogram((1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 2.0, 9.0):
            histogram.add(value)
        assert (histogram.counts, histogram.sum) == ([2, 2, 1], 14.0)

    @pytest.mark.parametrize("times", [1, 50])
    def test_many_values_at_once_fall_where_each_would(self, times: int) -> None:
        values = [0.0, 0.5, 1.0, 1.5, 2.0, 9.0] * times
        at_once, one_by_one = (
            Histogram((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)),
            Histogram((1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)),
        )
        at_once.add_all(values)
        for value in values:
            one_by_one.add(value)
        assert (at_once.counts, at_once.sum) == (one_by_one.counts, one_by_one.sum)


class TestHooks:
    async def test_a_hook_hears_of_each_job_what_became_of_it(self, world: World) -> None:
        @world.handlers.handler("some", backoff=(0.01,))
        async def some(ctx: JobCtx, payload: str) -> Failed | Dead | Throttled | None:
            return {"done": None, "failed": Failed("no"), "dead": Dead("never")}[payload]

        heard: list[Event] = []
        world.storage.observer.hook(heard.append)
        await world.work()
        done = await world.put("some", "done")
        failed = await world.put("some", "failed", max_attempts=2)
        dead = await world.put("some", "dead")
        for job_id, status in ((done, "done"), (failed, "dead"), (dead, "dead")):
            await world.when(job_id, status)

        def names(job_id: str) -> list[str]:
            return [event.name for event in heard if event.fields.get("job_id") == job_id]

        await until(lambda: names(failed)[-1] == "job_dead")
        assert names(done) == ["job_enqueued", "job_started", "job_done"]
        assert names(failed) == ["job_enqueued", "job_started", "job_failed", "job_started", "job_dead"]
        assert names(dead) == ["job_enqueued", "job_started", "job_dead"]
        assert {"worker_started", "store_op", "lease_gained"} <= {event.name for event in heard}

    async def test_a_hook_hears_only_what_it_asked_for_until_it_is_taken_off(self, tmp_path: Path) -> None:
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as storage:
            heard: list[str] = []
            end = storage.observer.hook(lambda event: heard.append(event.name), "job_started", "job_released")
            await add(storage)
            await run(storage, make_dead())
            assert heard == ["job_started"]
            end()
            await add(storage)
            await run(storage, make_dead())
            assert heard == ["job_started"]

    async def test_a_faulty_hook_is_logged_and_dropped(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        heard: list[str] = []

        def faulty(event: Event) -> None:
            raise RuntimeError("my own fault")

        world.storage.observer.hook(faulty)
        world.storage.observer.hook(lambda event: heard.append(event.name), "job_enqueued")
        with caplog.at_level(logging.ERROR, "forge_jobs.observe"):
            await world.put("k")
            await world.put("k")
        assert heard == ["job_enqueued", "job_enqueued"]
        assert [record.message.partition(" ")[0] for record in caplog.records] == ["hook_fault"]

    async def test_a_failing_loop_is_told(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        heard: list[Event] = []
        world.storage.observer.hook(heard.append, "loop_fault")

        runtime = await world.work()
        monkeypatch.setattr(type(runtime.env.heartbeat), "check_silence", lambda self: 1 / 0)
        await until(lambda: bool(heard))
        assert heard[0].fields["loop"] == "fence"
        assert world.storage.observer.counts("loop_errors") == {("fence",): len(heard)}
