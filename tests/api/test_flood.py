"""Somebody floods the API; the workers do not notice."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
FLOOD: Final = """
import asyncio, os, sys, httpx2
if hasattr(os, "SCHED_IDLE"):  # a flood comes from elsewhere: its own work on this machine is not to be measured
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
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
def flood(base: str) -> Iterator[None]:
    """64 callers that ask without a pause, in a process of their own."""
    with Popen([sys.executable, "-c", FLOOD, base], stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield
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


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_claims_beside_a_flood_of_requests(url: str) -> None:
    """With two cores, on which the flood, the server and this process have to find room, the slowest claims take about
    twice as long as before, by a turn of the scheduler; most take no longer.
    """
    rounds, claims = 3, 500
    async with open_storage(url) as storage:
        jobs = 2 * rounds * claims * JOBS_OF_A_CLAIM + 1_000
        for start in range(0, jobs, 10_000):
            some = range(start, min(start + 10_000, jobs))
            await storage.jobs.enqueue_bulk([EnqueueRequest("k", {"n": n}, queue=QUEUE) for n in some])
        slowest, usual = [], []
        with Live(url) as server:
            for _ in range(rounds):
                calm = await claims_ms(storage, claims)
                with flood(server.base):
                    flooded = await claims_ms(storage, claims)
                slowest.append(percentile(flooded) / percentile(calm))
                usual.append(statistics.median(flooded) / statistics.median(calm))
                print(
                    f"calm p50 {statistics.median(calm):.2f} p99 {percentile(calm):.2f} ms, "
                    f"flooded p50 {statistics.median(flooded):.2f} p99 {percentile(flooded):.2f} ms"
                )
            assert server.alive
    assert statistics.median(usual) <= 1.5, usual
    assert statistics.median(slowest) <= 4, slowest
