"""Counts of jobs are kept, and agree with a recount whatever happened."""

from __future__ import annotations

import asyncio
import random

from forge_jobs.clock import ManualClock
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Done, FinalizeOutcome
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.queue import QueueCounts
from forge_jobs.testing.conformance.arrange import Stand, add_many, bring, read_all, settle, take
from forge_jobs.testing.factories import QUEUE, make_dead, make_failed, make_throttled


class TestCountsAreKept:
    async def test_they_agree_with_a_recount_after_any_history(self, storage: Storage, clock: ManualClock) -> None:
        choose = random.Random(7)
        for _ in range(150):
            await one_act(storage, clock, choose)
            assert await counted(storage) == await recounted(storage)

    async def test_they_agree_when_jobs_go_while_they_are_folded(
        self, storage: Storage, neighbour: Storage, clock: ManualClock
    ) -> None:
        """Whoever folds must not count a job that another one is about to delete."""
        for status in ("done", "dead"):
            for _ in range(6):
                ids = await add_many(storage, 40)
                for job in await take(storage, 40):
                    await settle(storage, job, Done() if status == "done" else make_dead())
                clock.advance(130)
                await asyncio.gather(
                    neighbour.jobs.act_on("delete", JobFilter(ids=tuple(ids[:30]))),
                    storage.queues.fold_counts(),
                    *(storage.jobs.delete(job_id) for job_id in ids[30:35]),
                    neighbour.queues.fold_counts(),
                )
                assert await counted(storage) == await recounted(storage)

    async def test_a_clock_that_was_set_back_starts_them_anew(self, storage: Storage, clock: ManualClock) -> None:
        await bring(storage, clock, Stand.DONE)
        clock.advance(3600)
        for _ in range(2):
            await storage.queues.fold_counts()
        clock.step(-1800)
        await bring(storage, clock, Stand.DONE)
        clock.advance(300)
        await storage.queues.fold_counts()
        assert (await storage.queues.counts())[QUEUE].done == 2


async def one_act(storage: Storage, clock: ManualClock, choose: random.Random) -> None:
    """Something that happens to jobs, to their store or to time."""
    rows = list((await read_all(storage)).values())
    some = choose.choice(rows).id if rows else None
    act = choose.choice(["add", "add", "run", "run", "run", "time", "fold", "retry", "delete", "cleanup", "bulk"])
    if act == "add":
        await add_many(storage, choose.randint(1, 3), delay=choose.choice([0, 0, 60]))
    elif act == "run":
        outcomes: list[FinalizeOutcome] = [
            Done(),
            Done(),
            make_failed(delay=30),
            make_dead(),
            make_throttled(cool_down=False),
        ]
        outcome = choose.choice(outcomes)
        for job in await take(storage, choose.randint(1, 3)):
            await settle(storage, job, outcome)
    elif act == "time":
        clock.advance(choose.choice([1, 60, 150, 86_400]))
    elif act == "fold":
        await storage.queues.fold_counts()
    elif act == "cleanup":
        await storage.maintenance.cleanup()
    elif act == "bulk":
        await storage.jobs.act_on("retry", JobFilter(statuses=("dead",)))
    elif some is not None:
        await (storage.jobs.retry(some) if act == "retry" else storage.jobs.delete(some))


async def counted(storage: Storage) -> dict[str, int]:
    counts = (await storage.queues.counts()).get(QUEUE, QueueCounts())
    found = {name: getattr(counts, name) for name in ("in_progress", "failed", "done", "dead")}
    return {status: n for status, n in {**found, "pending": counts.ready + counts.scheduled}.items() if n}


async def recounted(storage: Storage) -> dict[str, int]:
    return {status: n for status, n in (await storage.jobs.count(JobFilter(queues=(QUEUE,)))).items() if n}
