"""A worker process rolls events up, and writes what it and the store use."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from forge_jobs import DefaultRouter, HandlerRegistry, JobCtx, open_storage
from forge_jobs.clock import ManualClock
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops import gauges, lag, metrics
from forge_jobs.runtime.queue_runtime import LOOPS
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.metric import METRICS, Bucket, Tally, percentile
from forge_jobs.testing.cluster import until
from forge_jobs.testing.conformance.arrange import EVER

from .world import World, scaled

ALL_TIME = timedelta(days=365 * 5)


async def read(storage: Storage, metric: str, **chosen: str) -> list[Bucket]:
    since, until_ = EVER
    return await storage.metrics.series(metric, since, until_, bucket=ALL_TIME, host_id=chosen.get("host_id"))


def process(storage: Storage) -> RuntimeEnv:
    """A process without anything running in it."""
    return RuntimeEnv(storage, HandlerRegistry(), DefaultRouter(), scaled(), None)


class TestGauges:
    async def test_a_process_writes_its_own_minute(self, tmp_path: Path) -> None:
        clock = ManualClock()
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as storage:
            env = process(storage)
            await lag.tick(env)
            await storage.queues.ensure("default")
            await storage.queues.list()
            await gauges.tick(env)
            assert await read(storage, "threads") == []
            clock.advance(60)
            await gauges.tick(env)
            of_process = [metric.name for metric in METRICS.values() if metric.of == "process"]
            found = {name: (await read(storage, name, host_id=env.host_id)) for name in of_process}
            assert [name for name, buckets in found.items() if len(buckets) != 1] == []
            value = {name: buckets[0].value for name, buckets in found.items()}
            assert (value["threads"].count, value["db_write_ms"].count, value["db_read_ms"].count) == (1, 1, 2)
            assert (value["threads"].min or 0) > 1
            assert (value["rss_bytes"].min or 0) > 1_000_000
            assert await read(storage, "threads", host_id="another") == []

    async def test_a_minute_that_could_not_be_written_does_not_stop_the_next(self, tmp_path: Path) -> None:
        clock = ManualClock()
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as storage:
            env = process(storage)
            await gauges.tick(env)
        clock.advance(60)
        with pytest.raises(Exception, match="closed"):
            await gauges.tick(env)
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as env.storage:
            clock.advance(60)
            await gauges.tick(env)
            assert len(await read(env.storage, "threads")) == 1


class TestRollupLoop:
    async def test_a_worker_rolls_up_what_it_did(self, world: World) -> None:
        @world.handlers.handler("quick")
        async def quick(ctx: JobCtx) -> None: ...

        runtime = await world.work(config=scaled(metrics_s=0.1))
        await world.when(await world.put("quick"), "done")
        await until(lambda: runtime.env.health.loops["metrics"].leading, what="the lease of the rollup")
        assert "db_size_bytes" in metrics.store_gauges(await world.storage.maintenance.status())

        async def recorded() -> bool:
            return bool(await read(world.storage, "db_size_bytes"))

        await until(recorded, what="gauges of the store")

    async def test_closed_minutes_are_rolled_up_and_the_store_is_measured(self, tmp_path: Path) -> None:
        clock = ManualClock()
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as storage:
            await storage.jobs.enqueue_bulk([])
            await World(storage, None).put("quick")
            await storage.events.flush()
            clock.advance(60)
            await metrics.tick(process(storage))
            (enqueued,) = await read(storage, "enqueued")
            assert enqueued.value.count == 1
            for name in ("db_size_bytes", "wal_bytes", "free_disk_pct"):
                assert len(await read(storage, name)) == 1

    async def test_the_age_of_a_checkpoint_is_known_once_there_was_one(self, tmp_path: Path) -> None:
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as storage:

            async def age() -> float | None:
                found = metrics.store_gauges(await storage.maintenance.status()).get("checkpoint_age_s")
                return None if found is None else found.mean

            assert await age() is None
            await World(storage, None).put("quick")
            found = await until(age, within_s=10, what="a checkpoint when the writer is idle")
            assert found is not None
            assert 0 <= found < 5

    def test_one_process_rolls_up_and_every_process_writes_its_gauges(self) -> None:
        leased = {loop.name: loop.leased for loop in LOOPS}
        assert (leased["metrics"], leased["gauges"]) == (True, False)


class TestTally:
    def test_percentiles_are_of_nearest_rank(self) -> None:
        values = Counter({float(n): 1 for n in range(1, 101)})
        assert [percentile(values, p) for p in (50, 95, 99)] == [50, 95, 99]
        assert percentile(Counter({7.0: 1}), 99) == 7
        assert percentile(Counter(), 50) == 0

    def test_many_values_take_little_room_and_stay_near(self) -> None:
        tally = Tally()
        for n in range(1, 100_001):
            tally.add(n / 1000)
        assert len(tally._values) < 500
        summary = tally.take()
        assert summary is not None
        assert (summary.count, summary.min, summary.max) == (100_000, 0.001, 100)
        assert summary.p50 == pytest.approx(50, rel=0.05)
        assert summary.p99 == pytest.approx(99, rel=0.05)
        assert tally.take() is None
