"""Draining: worker processes claim, run and finalize no-op jobs that were there before them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from forge_jobs.bench import raw
from forge_jobs.bench.measure import BATCH, BenchError, Sample, Samples
from forge_jobs.bench.process import started, worker_argv
from forge_jobs.bench.scratch import Scratch

SLOTS: Final = 100
FEW_SLOTS: Final = 10


def drain(scratch: Scratch) -> Samples:
    """One process with 100 slots."""
    jobs = scratch.sizes.jobs
    limit = _raw_rate(scratch, jobs, BATCH)
    return {"drain": Sample(_rate(scratch, jobs, SLOTS), limit)}


def drain_10(scratch: Scratch) -> Samples:
    """One process with 10 slots, against bare SQL that commits every claim and every finalize by itself."""
    sizes = scratch.sizes
    limit = _raw_rate(scratch, sizes.one_by_one, 1)
    return {"drain_10": Sample(_rate(scratch, sizes.small_batches, FEW_SLOTS), limit)}


def drain_2p(scratch: Scratch) -> Samples:
    """Two processes with 100 slots each on one file."""
    jobs = scratch.sizes.jobs
    limit = _raw_rate(scratch, jobs, BATCH)
    return {"drain_2p": Sample(_rate(scratch, jobs, SLOTS, processes=2), limit)}


def raw_drain_16col(scratch: Scratch) -> Samples:
    """Bare SQL on a plain table, for orientation."""
    jobs = scratch.sizes.jobs
    with scratch.empty_file() as database:
        connection = raw.connect(database)
        try:
            raw.create_generic(connection)
            raw.insert_rate(connection, raw.GENERIC, raw.tuples(jobs), raw.FILL_BATCH)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return {"raw_drain_16col": Sample(raw.drain_rate(connection, raw.GENERIC, jobs, BATCH))}
        finally:
            connection.close()


def _raw_rate(scratch: Scratch, jobs: int, batch: int) -> float:
    with scratch.store() as database:
        raw.fill(database, jobs)
        connection = raw.connect(database)
        try:
            return raw.drain_rate(connection, raw.FORGE, jobs, batch)
        finally:
            connection.close()


def _rate(scratch: Scratch, jobs: int, slots: int, processes: int = 1) -> float:
    with scratch.store() as database, ExitStack() as stack:
        raw.fill(database, jobs)
        argv = worker_argv(database, slots, "drain")
        workers = [stack.enter_context(started(argv, scratch.folder)) for _ in range(processes)]
        for worker in workers:
            worker.hear()
        for worker in workers:
            worker.tell()
        for worker in workers:
            worker.wait()
        return jobs / _span_s(database, jobs)


def _span_s(database: Path, jobs: int) -> float:
    """From the first claim to the last settlement, as the store has it."""
    connection = raw.connect(database)
    try:
        done, first_us, last_us = connection.execute(raw.FORGE["done_span"]).fetchone()
    finally:
        connection.close()
    if done != jobs:
        raise BenchError(f"{done} of {jobs} jobs were done")
    return max(float(last_us - first_us) / 1e6, 1e-6)
