"""What a worker process costs while it has nothing to do."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

from forge_jobs.bench.measure import QUEUE, BenchError, Sample, Samples
from forge_jobs.bench.process import WorkerProcess, started
from forge_jobs.bench.scratch import Scratch, Store

START_S: Final = 20.0
WORKER: Final = ("-m", "forge_jobs", "worker", "forge_jobs.bench.worker:handlers", "--queues", QUEUE)


def idle(scratch: Scratch) -> Samples:
    """A fresh worker with default settings: resident memory (private and shared), and its share of one core."""
    with scratch.store() as store, started([sys.executable, *WORKER], store, scratch.folder) as worker:
        _until_registered(scratch, store, worker)
        time.sleep(scratch.sizes.idle_after_s)
        before_s = _cpu_s(worker.process.pid)
        began = time.perf_counter()
        time.sleep(scratch.sizes.idle_window_s)
        used_s = _cpu_s(worker.process.pid) - before_s
        window_s = time.perf_counter() - began
        rss_mib = _rss_mib(worker.process.pid)
        if worker.process.poll() is not None:
            raise worker.fault()
    return {"idle_rss": Sample(rss_mib), "idle_cpu": Sample(100 * used_s / window_s)}


def _until_registered(scratch: Scratch, store: Store, worker: WorkerProcess) -> None:
    deadline = time.monotonic() + START_S
    with scratch.raw(store) as raw:
        while raw.workers() == 0:
            if worker.process.poll() is not None:
                raise worker.fault()
            if time.monotonic() > deadline:
                raise BenchError(f"the worker process did not register within {START_S:g} s")
            time.sleep(0.05)


def _cpu_s(pid: int) -> float:
    """Processor time used so far, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
