"""Pickup: how long a job takes from its enqueue to the first line of its handler, when workers are idle."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from forge_jobs.bench.measure import NOOP, QUEUE, BenchError, Sample, Samples, percentile
from forge_jobs.bench.process import started, worker_argv
from forge_jobs.bench.scratch import Scratch, Store
from forge_jobs.bench.worker import SENT_NS, pickup_handlers
from forge_jobs.runtime.queue_runtime import QueueRuntime
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import EnqueueRequest, JobFilter, JobStatus

SLOTS: Final = 10
PER_SECOND: Final = 50
WARM_UP: Final = 12
"""Jobs that are not counted: the first ones open connections and fill caches."""
PATIENCE_S: Final = 30.0


def pickup(scratch: Scratch) -> Samples:
    """The worker is in the process that enqueues."""
    with scratch.store() as store:
        waits_ms = asyncio.run(_in_one_process(store, scratch.sizes.pickups + WARM_UP))
    return _percentiles("pickup", waits_ms)


def pickup_other_process(scratch: Scratch) -> Samples:
    """The worker is another process on the same store."""
    with scratch.store() as store, started(worker_argv(SLOTS, "serve"), store, scratch.folder) as worker:
        worker.hear()
        asyncio.run(_from_outside(store, scratch.sizes.pickups + WARM_UP))
        worker.tell()
        waits_ms = json.loads(worker.hear())
        worker.wait()
    return _percentiles("pickup_other_process", waits_ms)


async def _in_one_process(store: Store, jobs: int) -> list[float]:
    waits_ms: list[float] = []
    async with store.open() as storage:
        runtime = QueueRuntime(storage, pickup_handlers(waits_ms), queues=[QUEUE], slots=SLOTS)
        await runtime.start()
        await _send(storage, jobs)
        await _until_done(storage, jobs)
        await runtime.stop()
    return waits_ms


async def _from_outside(store: Store, jobs: int) -> None:
    async with store.open() as storage:
        await _send(storage, jobs)
        await _until_done(storage, jobs)


async def _send(storage: Storage, jobs: int) -> None:
    """Enqueue at an even pace."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(jobs):
        due += 1 / PER_SECOND
        await asyncio.sleep(max(due - loop.time(), 0))
        await storage.jobs.enqueue(EnqueueRequest(NOOP, {SENT_NS: time.monotonic_ns()}, queue=QUEUE))


async def _until_done(storage: Storage, jobs: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (done := (await storage.jobs.count(JobFilter())).get(JobStatus.DONE, 0)) < jobs:
        if time.monotonic() > deadline:
            raise BenchError(f"{done} of {jobs} jobs were done after {PATIENCE_S:g} s")
        await asyncio.sleep(0.05)


def _percentiles(name: str, waits_ms: list[float]) -> Samples:
    counted = waits_ms[WARM_UP:]
    return {f"{name}_p50": Sample(percentile(counted, 50)), f"{name}_p99": Sample(percentile(counted, 99))}
