"""`/metrics` says what is so in a real store, in a form that Prometheus reads."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.observe import KINDS, OTHER
from forge_jobs.prometheus import Exposition, exposition
from forge_jobs.prometheus.families import names
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.process import ProcessState
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration
from forge_jobs.testing.conformance.arrange import add, add_many, run, take_one
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, KIND, QUEUE, make_dead, make_failed, make_process, make_throttled

from .scrape import Scraped


async def scrape(storage: Storage) -> Scraped:
    """A new look, nothing cached."""
    return Scraped((await Exposition(storage).render()).decode())


class TestGauges:
    async def test_jobs_by_queue_and_status(self, storage: Storage, clock: ManualClock) -> None:
        for outcome in (Done(), make_dead(), make_failed(delay=60)):
            await add(storage)
            await run(storage, outcome)
        await add_many(storage, 2)
        await take_one(storage)
        await add(storage, delay=60)
        clock.advance(7)
        found = await scrape(storage)
        states = ("pending", "scheduled", "in_progress", "failed", "dead", "done")
        assert {state: found.value(state, queue=QUEUE) for state in states} == dict.fromkeys(states, 1)
        assert found.value("oldest_ready_age_seconds", queue=QUEUE) == 7
        assert found.value("max_workers", queue=QUEUE) is None

    async def test_a_queue_without_jobs(self, storage: Storage) -> None:
        await storage.queues.ensure(QUEUE, QueueChange(max_workers=3))
        found = await scrape(storage)
        assert found.value("pending", queue=QUEUE) == 0
        assert found.value("oldest_ready_age_seconds", queue=QUEUE) == 0
        assert found.value("max_workers", queue=QUEUE) == 3
        assert found.value("unserved", queue=QUEUE) == 1

    async def test_pauses_and_cool_downs(self, storage: Storage) -> None:
        await add(storage)
        assert [(await scrape(storage)).value(name, queue=QUEUE) for name in ("paused", "throttled")] == [0, 0]
        await run(storage, make_throttled(30))
        await storage.queues.pause(QUEUE)
        assert [(await scrape(storage)).value(name, queue=QUEUE) for name in ("paused", "throttled")] == [1, 1]

    async def test_workers_slots_and_what_nobody_serves(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await add(storage, kind="strange")
        await add(storage, kind="later", delay=60)
        await add(storage)
        job = await take_one(storage)
        before = clock.now_us()
        clock.advance(4)
        await storage.leases.take("cron", HOST, timedelta(seconds=15))
        await beater.beat(
            make_process(
                label="w1", slots={QUEUE: 3}, running={f"{QUEUE}-0-{HOST}": job.id}, loops={"reaper": before},
                state=ProcessState.FENCED,
            )
        )  # fmt: skip
        found = await scrape(storage)
        assert (found.value("slots_open", queue=QUEUE), found.value("slots_busy", queue=QUEUE)) == (3, 1)
        assert found.value("unserved", queue=QUEUE) == 0
        assert [labels["kind"] for labels in found.labels("unserved_kind")] == ["later", "strange"]
        assert found.value("worker_info", host_id=HOST, worker="w1", version="0.1.0") == 1
        assert found.value("worker_fenced", host_id=HOST) == 1
        assert found.value("loop_last_success_age_seconds", loop="reaper") == 4
        assert found.value("leader", loop="cron", host_id=HOST) == 1
        clock.advance(31)
        assert (await scrape(storage)).value("unserved", queue=QUEUE) == 1
        assert (await scrape(storage)).labels("worker_info") == []

    async def test_tokens_of_limits(self, storage: Storage) -> None:
        await storage.rate_limits.ensure(RateLimitDeclaration(scope="api", capacity=5, refill_per_s=0, per_key=True))
        await storage.rate_limits.acquire("api:team-1", 2)
        found = await scrape(storage)
        assert found.value("rate_tokens", scope="api") == 5
        assert len(found.labels("rate_tokens")) == 1

    async def test_the_store_itself(self, storage: Storage) -> None:
        found = await scrape(storage)
        assert found.value("store_up") == 1
        assert found.value("listener_up") in (0, 1)
        assert (found.value("db_size_bytes") or 0) > 0
        if "postgresql" in storage.url:
            assert (found.value("db_connections", state="max") or 0) > (
                found.value("db_connections", state="ours") or 0
            )
            assert found.value("clock_offset_seconds") is not None
            assert found.value("dead_tuples") is not None
        else:
            assert found.value("wal_bytes") is not None

    async def test_a_store_that_is_gone_leaves_no_stale_numbers(self, storage: Storage) -> None:
        await add(storage)
        shown = Exposition(storage)
        assert Scraped((await shown.render()).decode()).value("store_up") == 1
        await storage.close()
        shown._gauges_due = 0.0
        found = Scraped((await shown.render()).decode())
        assert found.value("store_up") == 0
        assert found.labels("pending") == []
        assert found.value("enqueued_total", queue=QUEUE, kind=KIND) == 1

    async def test_scrapes_share_a_look_at_the_store(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = Exposition(storage)
        await add(storage)
        assert Scraped((await shown.render()).decode()).value("pending", queue=QUEUE) == 1
        await add(storage)
        assert Scraped((await shown.render()).decode()).value("pending", queue=QUEUE) == 1
        monkeypatch.setattr(exposition, "CACHED_S", 0.0)
        monkeypatch.setattr(exposition, "LEAST_REST", 0)
        shown._gauges_due = 0.0
        assert Scraped((await shown.render()).decode()).value("pending", queue=QUEUE) == 2


class TestCounts:
    async def test_what_this_process_did(self, storage: Storage, clock: ManualClock) -> None:
        await add_many(storage, 3)
        job = await take_one(storage)
        clock.advance(2)
        await storage.jobs.finalize(job.id, job.fence, Done())
        await run(storage, make_dead())
        found = await scrape(storage)
        job_labels = {"queue": QUEUE, "kind": KIND}
        assert found.value("enqueued_total", **job_labels) == 3
        assert found.value("started_total", **job_labels) == 2
        assert found.value("completed_total", **job_labels) == 1
        assert found.value("dead_total", **job_labels, reason="rejected") == 1
        assert found.value("run_seconds_sum", **job_labels) == 2
        assert found.value("run_seconds_bucket", **job_labels, le="1.0") == 0
        assert found.value("run_seconds_bucket", **job_labels, le="2.5") == 1
        assert found.value("run_seconds_bucket", **job_labels, le="+Inf") == 1

    async def test_buckets_never_fall(self, storage: Storage) -> None:
        for value in (0.0001, 0.004, 0.004, 0.7, 99.0):
            storage.observer.measure("claim_seconds", value)
        counts = (await scrape(storage)).values("claim_seconds_bucket")
        assert counts == sorted(counts)
        assert counts[-1] == 5

    async def test_kinds_beyond_the_bound_are_one(self, storage: Storage) -> None:
        for number in range(KINDS + 20):
            storage.observer.count("started", QUEUE, f"kind-{number}")
        found = await scrape(storage)
        assert len(found.labels("started_total")) == KINDS + 1
        assert found.value("started_total", kind=OTHER) == 20


class TestTheText:
    async def test_every_family_has_help_and_type_and_every_name_is_known(self, storage: Storage) -> None:
        await add(storage)
        await run(storage, Done())
        text = (await scrape(storage)).text
        told = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
        typed = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
        assert told == typed
        samples = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[0] != "#"}
        assert samples <= names()
        for name in samples:
            base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            assert name in told or base in told

    async def test_odd_labels_are_escaped(self, storage: Storage, beater: Beater) -> None:
        odd = 'back\\slash "quote"\nnewline ünïcode'
        await beater.beat(make_process(label=odd))
        found = await scrape(storage)
        assert [labels["worker"] for labels in found.labels("worker_info")] == [odd]
        assert '\\"quote\\"\\nnewline' in found.text

    async def test_no_job_id_key_or_payload_is_among_it(self, storage: Storage) -> None:
        job_id = await add(storage, payload={"secret": "s3cr3t"}, dedupe_key="order-4711")
        await run(storage, make_failed("s3cr3t"))
        text = (await scrape(storage)).text
        for hidden in (job_id, "s3cr3t", "order-4711"):
            assert hidden not in text
