"""Draining: worker processes claim, run and finalize no-op jobs that were there before them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from forge_jobs.bench.measure import BATCH, BenchError, Sample, Samples
from forge_jobs.bench.process import started, worker_argv
from forge_jobs.bench.scratch import Scratch, Store

SLOTS: Final = 100
FEW_SLOTS: Final = 10


def drain(scratch: Scratch) -> Samples:
    """One process with 100 slots."""
    return {"drain": Sample(one_process(scratch))}


def drain_10(scratch: Scratch) -> Samples:
    """One process with 10 slots."""
    return {"drain_10": Sample(_rate(scratch, scratch.sizes.small_batches, FEW_SLOTS))}


def drain_2p(scratch: Scratch) -> Samples:
    """Two processes with 100 slots each on one store."""
    return {"drain_2p": Sample(_rate(scratch, scratch.sizes.jobs, SLOTS, processes=2))}


def statements_per_job(scratch: Scratch) -> Samples:
    """What one process with 100 slots asks of a server, from before its first claim until it has ended, heartbeat and
    listening included: counted on the wire between the two, where nothing can be left out."""
    from forge_jobs.testing.fault_proxy import FaultProxy  # needs no more than SQLite does, who never comes here

    jobs = scratch.sizes.small_batches
    with scratch.store() as store:
        with scratch.raw(store) as raw:
            raw.fill(jobs)
        with FaultProxy(store.url) as proxy:
            wired = replace(store, url=proxy.url_through(store.url))
            with started(worker_argv(SLOTS, "drain"), wired, scratch.folder) as worker:
                worker.hear()
                before = proxy.traffic.statements
                worker.tell()
                worker.wait()
                statements = proxy.traffic.statements - before
        _span_s(scratch, store, jobs)
    return {"statements_per_job": Sample(statements / jobs)}


def bare(scratch: Scratch) -> float:
    """The limit: bare SQL in batches of 100."""
    return _bare_rate(scratch, scratch.sizes.jobs, BATCH)


def bare_one_by_one(scratch: Scratch) -> float:
    """The limit: bare SQL that commits every claim and every finalize by itself."""
    return _bare_rate(scratch, scratch.sizes.one_by_one, 1)


def one_process(scratch: Scratch) -> float:
    """The rate of one process with 100 slots."""
    return _rate(scratch, scratch.sizes.jobs, SLOTS)


def _bare_rate(scratch: Scratch, jobs: int, batch: int) -> float:
    with scratch.store() as store, scratch.raw(store) as raw:
        return raw.drain_rate(jobs, batch)


def _rate(scratch: Scratch, jobs: int, slots: int, processes: int = 1) -> float:
    with scratch.store() as store, ExitStack() as stack:
        with scratch.raw(store) as raw:
            raw.fill(jobs)
        argv = worker_argv(slots, "drain")
        workers = [stack.enter_context(started(argv, store, scratch.folder)) for _ in range(processes)]
        for worker in workers:
            worker.hear()
        for worker in workers:
            worker.tell()
        for worker in workers:
            worker.wait()
        return jobs / _span_s(scratch, store, jobs)


def _span_s(scratch: Scratch, store: Store, jobs: int) -> float:
    """From the first claim to the last settlement, as the store has it."""
    with scratch.raw(store) as raw:
        done, first_us, last_us = raw.done_span()
    if done != jobs:
        raise BenchError(f"{done} of {jobs} jobs were done")
    return max(float(last_us - first_us) / 1e6, 1e-6)
