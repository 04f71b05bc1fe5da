"""Enqueueing: one caller, many callers of one process, and bulks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from forge_jobs import limits
from forge_jobs.bench import raw
from forge_jobs.bench.measure import BATCH, NOOP, PAYLOAD, QUEUE, Sample, Samples
from forge_jobs.bench.scratch import Scratch, url_of
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import EnqueueRequest

CALLERS: Final = 100
RAW_BULK: Final = 1_000


def enqueue_one(scratch: Scratch) -> Samples:
    """One caller, who waits for every answer."""
    jobs = scratch.sizes.one_by_one
    limit = _raw_rate(scratch, jobs, 1)

    async def add(storage: Storage, requests: list[EnqueueRequest]) -> None:
        for request in requests:
            await storage.jobs.enqueue(request)

    return {"enqueue_one": Sample(_rate(scratch, jobs, add), limit)}


def enqueue_concurrent(scratch: Scratch) -> Samples:
    """A hundred callers, each of whom waits for every answer."""
    jobs = scratch.sizes.small_batches
    limit = _raw_rate(scratch, jobs, BATCH)

    async def call(storage: Storage, requests: list[EnqueueRequest]) -> None:
        for request in requests:
            await storage.jobs.enqueue(request)

    async def add(storage: Storage, requests: list[EnqueueRequest]) -> None:
        async with asyncio.TaskGroup() as callers:
            for caller in range(CALLERS):
                callers.create_task(call(storage, requests[caller::CALLERS]))

    return {"enqueue_concurrent": Sample(_rate(scratch, jobs, add), limit)}


def enqueue_bulk(scratch: Scratch) -> Samples:
    """Bulks as large as they may be."""
    jobs = scratch.sizes.jobs
    limit = _raw_rate(scratch, jobs, RAW_BULK)

    async def add(storage: Storage, requests: list[EnqueueRequest]) -> None:
        for start in range(0, len(requests), limits.BULK_REQUESTS):
            await storage.jobs.enqueue_bulk(requests[start : start + limits.BULK_REQUESTS])

    return {"enqueue_bulk": Sample(_rate(scratch, jobs, add), limit)}


def raw_enqueue_16col(scratch: Scratch) -> Samples:
    """Bare SQL on a plain table, for orientation."""
    with scratch.empty_file() as database:
        connection = raw.connect(database)
        try:
            raw.create_generic(connection)
            jobs = raw.tuples(scratch.sizes.jobs)
            return {"raw_enqueue_16col": Sample(raw.insert_rate(connection, raw.GENERIC, jobs, BATCH))}
        finally:
            connection.close()


def _raw_rate(scratch: Scratch, jobs: int, batch: int) -> float:
    with scratch.store() as database:
        connection = raw.connect(database)
        try:
            return raw.insert_rate(connection, raw.FORGE, raw.tuples(jobs), batch)
        finally:
            connection.close()


def _rate(scratch: Scratch, jobs: int, add: Callable[[Storage, list[EnqueueRequest]], Awaitable[None]]) -> float:
    async def run() -> float:
        requests = [EnqueueRequest(NOOP, PAYLOAD, queue=QUEUE) for _ in range(jobs)]
        async with open_storage(url_of(database)) as storage:
            began = time.perf_counter()
            await add(storage, requests)
            return jobs / (time.perf_counter() - began)

    with scratch.store() as database:
        return asyncio.run(run())
