"""Handlers that need a core of their own get one, and a worker does not grow with its jobs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from forge_jobs import EnqueueRequest, QueueRuntime, RuntimeConfig, Storage, open_storage
from forge_jobs.ids import JobId
from forge_jobs.runtime.executors import oom
from forge_jobs.runtime.executors.warm_child import WarmChild
from forge_jobs.runtime.gauges import rss_mib
from forge_jobs.testing.cluster import until
from runtime import child_handlers, table

from .stage import QUICK, Stage, put, when

LOAD: Final = 3_000_000
"""Rounds of pure Python in a job: about 0.2 s."""
JOBS: Final = 6
WANTED: Final = 1.5
"""How much faster two slots must be than one. On two idle cores it is about 2; others may use them."""
TRIES: Final = 4


async def crunch(storage: Storage, slots: int) -> float:
    """Seconds that the load takes with so many children, which are warm."""
    runtime = QueueRuntime(storage, child_handlers.handlers, slots=slots, registry=child_handlers.PATH)
    await runtime.start()
    try:
        await all_done(runtime, {"n": LOAD // 3}, slots)
        began = time.perf_counter()
        await all_done(runtime, {"n": LOAD}, JOBS)
        return time.perf_counter() - began
    finally:
        await runtime.stop(0)


async def all_done(runtime: QueueRuntime, payload: dict[str, int], jobs: int) -> None:
    before = runtime.report.finished
    await runtime.enqueue_bulk([EnqueueRequest("crunch", payload) for _ in range(jobs)])
    async with asyncio.timeout(60):
        while runtime.report.finished < before + jobs:
            await asyncio.sleep(0.002)


async def test_two_slots_finish_a_pure_python_load_faster_than_one(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert cores >= 2, f"this needs 2 cores and may use {cores}: one has nothing to share"
    ratios = []
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as storage:
        for _ in range(TRIES):  # others may use the cores
            one, two = await crunch(storage, 1), await crunch(storage, 2)
            ratios.append(one / two)
            if ratios[-1] >= WANTED:
                break
    print("two slots are faster by", [f"{ratio:.2f}" for ratio in ratios])
    assert max(ratios) >= WANTED, ratios


@pytest.fixture(params=["on_a_file", "on_postgresql"])
def anywhere(request: pytest.FixtureRequest) -> Stage:
    """A stage on each backend."""
    stage: Stage = request.getfixturevalue(request.param)
    return stage


@asynccontextmanager
async def hungry(
    stage: Stage, mib: int, config: RuntimeConfig = QUICK
) -> AsyncIterator[tuple[Storage, QueueRuntime, JobId]]:
    """A child that takes so much memory, and two that have jobs of their own; those are done in the end."""
    async with open_storage(stage.url) as storage:
        runtime = QueueRuntime(storage, child_handlers.handlers, slots=3, config=config, registry=child_handlers.PATH)
        await runtime.start()
        try:
            neighbours = [await put(storage, "sleep", {"s": 1.5}) for _ in range(2)]
            await until(lambda: len(runtime.env.running) == 2, what="the neighbours at work")
            yield storage, runtime, await put(storage, "hog", {"mib": mib}, max_attempts=1)
            for job_id in neighbours:
                row = (await when(storage, job_id, "done", within_s=20)).row
                assert (row.fence, row.crashes, row.attempts) == (1, 0, 1)
        finally:
            await runtime.stop(0)


async def test_a_child_that_reaches_its_limit_of_memory_fails_its_own_job_alone(anywhere: Stage) -> None:
    async with hungry(anywhere, 4_096, replace(QUICK, child_memory_mib=1_000)) as (storage, _, job_id):
        detail = await when(storage, job_id, "dead", within_s=20)
        assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [("failed", "MemoryError")]
        assert detail.row.crashes == 0
        assert "hog" in (detail.traceback or "")
        await when(storage, await put(storage, "pid"), "dead", within_s=20)  # its child goes on


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        ("oom_kill 0", "oom_kill 1", "oom, the kernel ended it as memory was short (killed by signal 9 (SIGKILL))"),
        ("oom_kill 7", "oom_kill 7", "killed by signal 9 (SIGKILL)"),
        (None, None, "killed by signal 9 (SIGKILL), perhaps by the kernel as memory was short"),
    ],
)
async def test_a_child_that_the_kernel_kills_crashes_its_own_job_alone(
    anywhere: Stage, before: str | None, after: str | None, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, counter = anywhere.folder / "cgroup", anywhere.folder / "memory.events"
    groups.write_text("0::/\n")
    if before is not None:
        counter.write_text(f"{before}\n")
    monkeypatch.setattr(oom, "PROC", groups)
    monkeypatch.setattr(oom, "MOUNT", anywhere.folder)
    async with hungry(anywhere, 64) as (storage, runtime, job_id):
        run = await until(lambda: runtime.env.running.of_job(job_id), what="the hungry one at work")
        child = await until(lambda: run.place, what="its child")
        await until(lambda: run.progress_due is not None, within_s=20, what="some memory taken")
        if after is not None:
            counter.write_text(f"{after}\n")
        assert isinstance(child, WarmChild)
        os.kill(child.pid, signal.SIGKILL)
        detail = await when(storage, job_id, "dead", within_s=20)
        assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [
            ("crash", f"child process died: {cause}")
        ]
        assert detail.row.crashes == 1


MIX: Final = ("none", "done", "failed", "dead", "throttled", "error", "cause", "system_exit", "text", "dead_on")
PLACES: Final = ("async", "thread", "process", "process-async")


async def mixed(storage: Storage, runtime: QueueRuntime, jobs: int) -> None:
    """So many jobs of the table, on every executor; each of them runs once."""
    kinds = [f"{place}.{name}" for name in MIX for place in PLACES]
    before = runtime.env.health.counts["finished"]
    await runtime.enqueue_bulk([EnqueueRequest(kinds[n % len(kinds)], delay=0) for n in range(jobs)])
    async with asyncio.timeout(100):
        while runtime.env.health.counts["finished"] < before + jobs or len(runtime.env.running):
            await asyncio.sleep(0.01)


def size() -> dict[str, float]:
    gc.collect()
    return {
        "rss_mib": rss_mib(os.getpid()),
        "fds": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


async def grown(database: Path, *, warm: int, jobs: int) -> tuple[dict[str, float], dict[str, float]]:
    """What the process used when every thread and child was there, and after so many jobs more."""
    config = RuntimeConfig(supervisor_s=0.2, poll_ms=50)
    async with open_storage(f"sqlite:///{database}") as storage:
        runtime = QueueRuntime(storage, table.handlers, slots=4, config=config, registry=table.PATH)
        await runtime.start()
        try:
            for place in ("thread", "process"):
                await all_slots(runtime, f"{place}.ignore")
            await mixed(storage, runtime, warm)
            before = size()
            await mixed(storage, runtime, jobs)
            return before, size()
        finally:
            await runtime.stop(0)


async def all_slots(runtime: QueueRuntime, kind: str) -> None:
    """A second in which every slot has a job of this kind."""
    before = runtime.report.finished
    await runtime.enqueue_bulk([EnqueueRequest(kind) for _ in range(4)])
    async with asyncio.timeout(60):
        while runtime.report.finished < before + 4:
            await asyncio.sleep(0.01)


def check(before: dict[str, float], after: dict[str, float]) -> None:
    print(before, after)
    assert {name: after[name] for name in before if after[name] > before[name] * 1.1} == {}


@pytest.mark.slow
async def test_a_worker_does_not_grow_with_its_jobs(tmp_path: Path) -> None:
    check(*await grown(tmp_path / "jobs.db", warm=1_000, jobs=1_000))


@pytest.mark.slow
async def test_a_worker_does_not_grow_with_very_many_jobs(tmp_path: Path) -> None:
    check(*await grown(tmp_path / "jobs.db", warm=3_000, jobs=6_000))
