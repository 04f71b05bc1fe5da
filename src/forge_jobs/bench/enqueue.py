"""Enqueueing: one caller, many callers of one process, and bulks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from forge_jobs import limits
from forge_jobs.bench.measure import BATCH, NOOP, PAYLOAD, QUEUE, Sample, Samples
from forge_jobs.bench.scratch import Scratch
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import EnqueueRequest

CALLERS: Final = 100
BARE_BULK: Final = 1_000


def enqueue_one(scratch: Scratch) -> Samples:
    """One caller, who waits for every answer."""
    jobs = scratch.sizes.one_by_one

    async def add(storage: Storage, requests: list[EnqueueRequest]) -> None:
        for request in requests:
            await storage.jobs.enqueue(request)

    return {"enqueue_one": Sample(_rate(scratch, jobs, add))}


def enqueue_concurrent(scratch: Scratch) -> Samples:
    """A hundred callers, each of whom waits for every answer."""
    jobs = scratch.sizes.small_batches

    async def call(storage: Storage, requests: list[EnqueueRequest]) -> None:
        for request in requests:
            await storage.jobs.enqueue(request)

    async def add(storage: Storage, requests: list[EnqueueRequest]) -> None:
        async with asyncio.TaskGroup() as callers:
            for caller in range(CALLERS):
                callers.create_task(call(storage, requests[caller::CALLERS]))

    return {"enqueue_concurrent": Sample(_rate(scratch, jobs, add))}


def enqueue_bulk(scratch: Scratch) -> Samples:
    """Bulks as large as they may be."""
    jobs = scratch.sizes.jobs

    async def add(storage: Storage, requests: list[EnqueueRequest]) -> None:
        for start in range(0, len(requests), limits.BULK_REQUESTS):
            await storage.jobs.enqueue_bulk(requests[start : start + limits.BULK_REQUESTS])

    return {"enqueue_bulk": Sample(_rate(scratch, jobs, add))}


def bare_one_by_one(scratch: Scratch) -> float:
    """The limit: bare SQL that commits every job by itself."""
    return _bare_rate(scratch, scratch.sizes.one_by_one, 1)


def bare_batches(scratch: Scratch) -> float:
    """The limit: bare SQL in batches of 100."""
    return _bare_rate(scratch, scratch.sizes.small_batches, BATCH)


def bare_bulk(scratch: Scratch) -> float:
    """The limit: bare SQL in batches of 1 000."""
    return _bare_rate(scratch, scratch.sizes.jobs, BARE_BULK)


def _bare_rate(scratch: Scratch, jobs: int, batch: int) -> float:
    with scratch.store() as store, scratch.raw(store) as raw:
        return raw.insert_rate(jobs, batch)


def _rate(scratch: Scratch, jobs: int, add: Callable[[Storage, list[EnqueueRequest]], Awaitable[None]]) -> float:
    async def run() -> float:
        requests = [EnqueueRequest(NOOP, PAYLOAD, queue=QUEUE) for _ in range(jobs)]
        async with store.open() as storage:
            began = time.perf_counter()
            await add(storage, requests)
            return jobs / (time.perf_counter() - began)

    with scratch.store() as store:
        return asyncio.run(run())
