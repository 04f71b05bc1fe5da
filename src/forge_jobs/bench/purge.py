"""Claims while retention removes half a million finished jobs, against the same claims before it."""

from __future__ import annotations

import asyncio
from typing import Final

from forge_jobs.bench.claim import churn, claim_ms
from forge_jobs.bench.measure import QUEUE, BenchError, Sample, Samples, percentile
from forge_jobs.bench.scratch import Scratch, Store
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.queue import QueueChange

JOBS_OF_A_CLAIM: Final = 10
CLAIMS: Final = 300
PAUSE_S: Final = 0.01
"""Between two claims, as a worker that is not at its limit has it."""


def claim_during_purge(scratch: Scratch) -> Samples:
    """The 99th percentile of claims during the purge, and before it as the limit."""
    removed = scratch.sizes.churned
    with scratch.store() as store:
        with scratch.raw(store) as raw:
            raw.fill(removed + 3 * CLAIMS * JOBS_OF_A_CLAIM)
        asyncio.run(churn(store, removed))
        value, limit = asyncio.run(_measure(store, removed))
    return {"claim_during_purge": Sample(value, limit)}


async def _measure(store: Store, removed: int) -> tuple[float, float]:
    async with store.open() as storage:
        await storage.queues.ensure(QUEUE)
        before = [await _paced(storage) for _ in range(CLAIMS)]
        await storage.queues.change(QUEUE, QueueChange(retain_done_days=0))
        purge = asyncio.ensure_future(storage.maintenance.cleanup())
        during: list[float] = []
        while not purge.done() and len(during) < CLAIMS:
            during.append(await _paced(storage))
        report = await purge
    if report.done < removed:
        raise BenchError(f"retention removed {report.done} jobs of {removed}")
    return percentile(during, 99), percentile(before, 99)


async def _paced(storage: Storage) -> float:
    await asyncio.sleep(PAUSE_S)
    return await claim_ms(storage, JOBS_OF_A_CLAIM)
