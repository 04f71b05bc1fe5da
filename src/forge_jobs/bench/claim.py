"""Claims beside a large backlog, against the same claims beside ten thousand rows."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Final

from forge_jobs.bench.measure import BATCH, NOOP, QUEUE, BenchError, Sample, Samples
from forge_jobs.bench.scratch import Scratch, Store
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import Claim, ClaimRequest, Storage
from forge_jobs.storage.types.finalize import Done, Finalize

FEW_ROWS: Final = 10_000
WARM_UP: Final = 3
CLAIMS: Final = 40


def claim_at_1m(scratch: Scratch) -> Samples:
    """Beside a million ready rows."""
    many = scratch.once("backlog", lambda raw: raw.fill(scratch.sizes.backlog))
    return _compare(scratch, "claim_at_1m", many)


def claim_future_band(scratch: Scratch) -> Samples:
    """Beside a hundred thousand rows that are not due yet, in a better priority band."""
    with scratch.store() as store:
        with scratch.raw(store) as raw:
            raw.fill(scratch.sizes.future, future=True)
            raw.fill(FEW_ROWS)
        return _compare(scratch, "claim_future_band", store)


def claim_after_churn(scratch: Scratch) -> Samples:
    """Beside a million ready rows and a hundred thousand of the future in a better band, after half a million jobs were
    claimed and finished in one go: what they leave behind stands where the claims look first."""
    sizes = scratch.sizes
    with scratch.store() as store:
        with scratch.raw(store) as raw:
            raw.fill(sizes.future, future=True)
            raw.fill(sizes.backlog + sizes.churned)
        asyncio.run(churn(store, sizes.churned))
        return _compare(scratch, "claim_after_churn", store)


async def churn(store: Store, jobs: int) -> None:
    """Claim and finish `jobs` as a worker does, the finish of one batch together with the claim of the next."""
    async with store.open() as storage:
        request = _request()
        claim = await storage.jobs.claim(request)
        for _ in range(jobs // BATCH - 1):
            exchange = await storage.jobs.settle_and_claim(_all_done(claim), [request])
            claim = _full(exchange.claims[0])
        await storage.jobs.settle_and_claim(_all_done(claim))


def _compare(scratch: Scratch, name: str, many: Store) -> Samples:
    with scratch.store() as few:
        with scratch.raw(few) as raw:
            raw.fill(FEW_ROWS)
        value, limit = asyncio.run(_medians_ms(many, few))
    return {name: Sample(value, limit)}


async def _medians_ms(many: Store, few: Store) -> tuple[float, float]:
    """Claims on both stores in turn."""
    async with many.open() as one, few.open() as other:
        times = [(await claim_ms(one), await claim_ms(other)) for _ in range(WARM_UP + CLAIMS)][WARM_UP:]
    return statistics.median(of_many for of_many, _ in times), statistics.median(of_few for _, of_few in times)


async def claim_ms(storage: Storage, jobs: int = BATCH) -> float:
    """How long a claim of so many jobs takes. They are finished, so that every claim takes rows of its own."""
    request = _request(jobs)
    began = time.perf_counter()
    claim = await storage.jobs.claim(request)
    spent_s = time.perf_counter() - began
    await storage.jobs.settle_and_claim(_all_done(_full(claim, jobs)))
    return spent_s * 1000


def _request(jobs: int = BATCH) -> ClaimRequest:
    host = new_id()
    slots = tuple(f"{QUEUE}-{slot}-{host}" for slot in range(jobs))
    return ClaimRequest(queue=QUEUE, kinds=(NOOP,), host_id=host, slots=slots)


def _full(claim: Claim, jobs: int = BATCH) -> Claim:
    if len(claim.jobs) != jobs:
        raise BenchError(f"a claim of {jobs} gave {len(claim.jobs)} jobs")
    return claim


def _all_done(claim: Claim) -> list[Finalize]:
    return [Finalize(job.id, job.fence, Done(), job) for job in claim.jobs]
