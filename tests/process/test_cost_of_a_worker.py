"""What a worker costs its host: nothing while it waits, and no more after much work than after little."""

from __future__ import annotations

import os

import psutil  # type: ignore[import-untyped]

from forge_jobs import EnqueueRequest, RuntimeConfig, Storage
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.testing.cluster import until

from .stage import Stage

WARM, MEASURED = 600, 2_000


async def test_two_thousand_mixed_jobs_leave_no_memory_files_or_threads_behind(stage: Stage, storage: Storage) -> None:
    with stage.cluster(1, slots=20) as cluster:
        process = psutil.Process(cluster.pid("worker-0"))
        await work_through(storage, 0, WARM)
        memory, files, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
        await work_through(storage, WARM, WARM + MEASURED)
        grown = process.memory_info().rss / memory - 1
        assert grown < 0.1, f"memory grew by {grown:.0%}"
        assert process.num_fds() <= files * 1.1
        assert process.num_threads() <= threads * 1.1
        assert cluster.stop("worker-0") == 0, cluster.log("worker-0")


async def work_through(storage: Storage, start: int, end: int) -> None:
    """Have the jobs of these numbers run once each."""
    requests = [EnqueueRequest("mixed", number, queue="default") for number in range(start, end)]
    await storage.jobs.enqueue_bulk(requests)

    async def ran() -> bool:
        waiting = await storage.jobs.count(JobFilter(statuses=("in_progress",)))
        untouched = await storage.jobs.outstanding(["default"], ["mixed"])
        return not waiting and untouched.ready == 0

    await until(ran, within_s=20)


async def test_an_idle_worker_costs_next_to_nothing(stage: Stage, storage: Storage) -> None:
    """With the timings of production; its thread that watches the file looks fifty times a second at first."""
    with stage.cluster(1, config=RuntimeConfig()) as cluster:
        await until(lambda: "worker_started" in cluster.log("worker-0"))
        process = psutil.Process(cluster.pid("worker-0"))
        began, used = os.times().elapsed, sum(process.cpu_times()[:2])
        await until(lambda: os.times().elapsed - began > 3)
        share = (sum(process.cpu_times()[:2]) - used) / (os.times().elapsed - began)
        assert share < 0.05, f"{share:.1%} of a core"
