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
from forge_jobs.storage.types.job import EnqueueRequest
from forge_jobs.storage.types.rate_limit import Gate, RateLimitDeclaration

FEW_ROWS: Final = 10_000
WARM_UP: Final = 3
CLAIMS: Final = 40
GATE: Final = Gate(kind="limited", scope="bench")
FEW_BLOCKED: Final = 10
BULK_JOBS: Final = 10_000


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


def claim_blocked(scratch: Scratch) -> Samples:
    """Beside a hundred thousand ready rows in a better priority band of a kind whose rate limit is used up."""
    with scratch.store() as many, scratch.store() as few:
        for store, blocked in ((many, scratch.sizes.future), (few, FEW_BLOCKED)):
            with scratch.raw(store) as raw:
                raw.fill(FEW_ROWS)
            asyncio.run(_block(store, blocked))
        value, limit = asyncio.run(_medians_ms(many, few, GATE))
    return {"claim_blocked": Sample(value, limit)}


async def _block(store: Store, jobs: int) -> None:
    async with store.open() as storage:
        await storage.rate_limits.add(RateLimitDeclaration(scope=GATE.scope, capacity=1, refill_per_s=0))
        await storage.rate_limits.drain(GATE.scope)
        waiting = [EnqueueRequest(GATE.kind, {}, queue=QUEUE, priority=-1) for _ in range(jobs)]
        for start in range(0, jobs, BULK_JOBS):
            await storage.jobs.enqueue_bulk(waiting[start : start + BULK_JOBS])


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


async def _medians_ms(many: Store, few: Store, *gates: Gate) -> tuple[float, float]:
    """Claims on both stores in turn."""
    async with many.open() as one, few.open() as other:
        times = [
            (await claim_ms(one, BATCH, *gates), await claim_ms(other, BATCH, *gates)) for _ in range(WARM_UP + CLAIMS)
        ][WARM_UP:]
    return statistics.median(of_many for of_many, _ in times), statistics.median(of_few for _, of_few in times)


async def claim_ms(storage: Storage, jobs: int = BATCH, *gates: Gate) -> float:
    """How long a claim of so many jobs takes. They are finished, so that every claim takes rows of its own."""
    request = _request(jobs, *gates)
    began = time.perf_counter()
    claim = await storage.jobs.claim(request)
    spent_s = time.perf_counter() - began
    await storage.jobs.settle_and_claim(_all_done(_full(claim, jobs)))
    return spent_s * 1000


def _request(jobs: int = BATCH, *gates: Gate) -> ClaimRequest:
    host = new_id()
    slots = tuple(f"{QUEUE}-{slot}-{host}" for slot in range(jobs))
    kinds = (NOOP, *(gate.kind for gate in gates))
    return ClaimRequest(queue=QUEUE, kinds=kinds, host_id=host, slots=slots, gates=gates)


def _full(claim: Claim, jobs: int = BATCH) -> Claim:
    if len(claim.jobs) != jobs:
        raise BenchError(f"a claim of {jobs} gave {len(claim.jobs)} jobs")
    return claim


def _all_done(claim: Claim) -> list[Finalize]:
    return [Finalize(job.id, job.fence, Done(), job) for job in claim.jobs]
