"""Somebody floods the API; the workers do not notice."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from subprocess import PIPE, Popen
from typing import Final

import pytest

from forge_jobs import EnqueueRequest
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import ClaimRequest, Storage
from forge_jobs.storage.types.finalize import Done, Finalize

from .live import Live

QUEUE: Final = "work"
JOBS_OF_A_CLAIM: Final = 10
PAUSE_S: Final = 0.01
ROUNDS: Final = 3
CLAIMS: Final = 500
FLOOD: Final = """
import asyncio, sys, httpx2
async def ask(client, paths):
    while True:
        for path in paths:
            await client.get(path)
async def main():
    limits = httpx2.Limits(max_connections=64)
    async with httpx2.AsyncClient(base_url=sys.argv[1], headers={"Sec-Fetch-Site": "none"}, limits=limits) as client:
        assert (await client.get("/api/v1/overview")).status_code == 200
        print("begun", flush=True)
        paths = [f"/api/v1/{path}" for path in ("overview", "jobs", "queues", "jobs?order=scheduled", "jobs/groups")]
        await asyncio.gather(*(ask(client, paths) for _ in range(64)))
asyncio.run(main())
"""


@contextmanager
def flood(base: str) -> Iterator[Popen[bytes]]:
    """64 callers that ask without a pause, in a process of their own."""
    with Popen([sys.executable, "-c", FLOOD, base], stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield process
        finally:
            process.kill()


async def claims_ms(storage: Storage, count: int) -> list[float]:
    """How long claims take that settle the jobs of the one before, as a worker's do, when nothing waits for them."""
    found: list[float] = []
    settled: list[Finalize] = []
    for _ in range(count):
        await asyncio.sleep(PAUSE_S)
        slots = tuple(f"{QUEUE}-{n}-h" for n in range(JOBS_OF_A_CLAIM))
        request = ClaimRequest(queue=QUEUE, kinds=("k",), host_id="01JH3V7M8Q2X4N5P6R7S8T9VWX", slots=slots)
        began = time.perf_counter()
        answer = await storage.jobs.settle_and_claim(settled, [request])
        found.append(1_000 * (time.perf_counter() - began))
        settled = [Finalize(job.id, job.fence, Done(), job) for job in answer.claims[0].jobs]
        assert settled
    return found


def percentile(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100 - 1]


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Processes and threads that begin within run on these."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_claims_beside_a_flood_of_requests(url: str) -> None:
    """The server and who floods it share one core, who claims has another: what is measured is the store, not that the
    cores are busy. A PostgreSQL server works for both, wherever it likes."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    async with open_storage(url) as storage:
        for start in range(0, 2 * ROUNDS * CLAIMS * JOBS_OF_A_CLAIM + 1_000, 1_000):
            requests = [EnqueueRequest("k", {"n": start + n}, queue=QUEUE) for n in range(1_000)]
            await storage.jobs.enqueue_bulk(requests)
    ratios = []
    with ExitStack() as ends:
        with on_cores({first}):
            server = ends.enter_context(Live(url))
        ends.enter_context(on_cores({second}))
        async with open_storage(url) as storage:
            for _ in range(ROUNDS):
                calm = await claims_ms(storage, CLAIMS)
                with on_cores({first}):
                    flooding = ends.enter_context(flood(server.base))
                flooded = await claims_ms(storage, CLAIMS)
                flooding.kill()
                ratios.append(percentile(flooded) / percentile(calm))
                print(
                    f"calm p50 {statistics.median(calm):.2f} p99 {percentile(calm):.2f} ms, "
                    f"flooded p50 {statistics.median(flooded):.2f} p99 {percentile(flooded):.2f} ms"
                )
        assert server.alive
    assert statistics.median(ratios) <= (2 if url.startswith("sqlite") else 3), ratios
