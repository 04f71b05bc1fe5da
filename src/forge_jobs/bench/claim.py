"""Claims beside a large backlog, against the same claims beside ten thousand rows."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Final

from forge_jobs.bench import raw
from forge_jobs.bench.measure import BATCH, NOOP, QUEUE, BenchError, Sample, Samples
from forge_jobs.bench.scratch import Scratch, url_of
from forge_jobs.ids import new_id
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import ClaimRequest, Storage
from forge_jobs.storage.types.finalize import Done, Finalize

FEW_ROWS: Final = 10_000
WARM_UP: Final = 3
CLAIMS: Final = 40


def claim_at_1m(scratch: Scratch) -> Samples:
    """Beside a million ready rows."""
    many = scratch.once("backlog", lambda database: raw.fill(database, scratch.sizes.backlog))
    return _compare(scratch, "claim_at_1m", many)


def claim_future_band(scratch: Scratch) -> Samples:
    """Beside a hundred thousand rows that are not due yet, in a better priority band."""
    with scratch.store() as database:
        raw.fill(database, scratch.sizes.future, insert="insert_future")
        raw.fill(database, FEW_ROWS)
        return _compare(scratch, "claim_future_band", database)


def _compare(scratch: Scratch, name: str, many: Path) -> Samples:
    with scratch.store() as few:
        raw.fill(few, FEW_ROWS)
        value, limit = asyncio.run(_medians_ms(many, few))
    return {name: Sample(value, limit)}


async def _medians_ms(many: Path, few: Path) -> tuple[float, float]:
    """Claims on both stores in turn. What was claimed is finished, so that every claim takes rows of its own."""
    async with open_storage(url_of(many)) as one, open_storage(url_of(few)) as other:
        times = [(await _claim_ms(one), await _claim_ms(other)) for _ in range(WARM_UP + CLAIMS)][WARM_UP:]
    return statistics.median(of_many for of_many, _ in times), statistics.median(of_few for _, of_few in times)


async def _claim_ms(storage: Storage) -> float:
    host = new_id()
    slots = tuple(f"{QUEUE}-{slot}-{host}" for slot in range(BATCH))
    request = ClaimRequest(queue=QUEUE, kinds=(NOOP,), host_id=host, slots=slots)
    began = time.perf_counter()
    claim = await storage.jobs.claim(request)
    spent_s = time.perf_counter() - began
    if len(claim.jobs) != BATCH:
        raise BenchError(f"a claim of {BATCH} gave {len(claim.jobs)} jobs")
    await storage.jobs.settle_and_claim([Finalize(job.id, job.fence, Done(), job) for job in claim.jobs])
    return spent_s * 1000
