"""Workers die at every stage of a job: nothing is lost, nothing is stuck, and every second run has its reason."""

from __future__ import annotations

import time
from functools import partial

import pytest

from forge_jobs import Storage
from forge_jobs.failpoints import ENVIRONMENT
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import Cluster, until

from .stage import QUICK, Stage, all_finished, put, read, rows, when

JOBS = 12


@pytest.mark.parametrize(
    ("place", "crashes", "reruns"),
    [
        ("claim.before_commit", 0, 0),
        ("claim.after_commit", 1, 0),
        ("handler.before", 1, 0),
        ("handler.after", 1, 1),
        ("settle.before_commit", 1, 1),
        ("settle.after_commit", 0, 0),
    ],
)
async def test_a_worker_killed_at_any_stage_loses_no_job_and_costs_at_most_its_own_run(
    stage: Stage, storage: Storage, place: str, crashes: int, reruns: int
) -> None:
    """`crashes`: whether the jobs in its hands count one; `reruns`: whether their handlers had run."""
    ids = [await put(storage) for _ in range(JOBS)]
    with stage.cluster(1, slots=3, failpoints=f"{place}=kill") as cluster:
        await until(lambda: cluster.exit_status("worker-0") == -9)
        held = [row for row in (await rows(storage)).values() if row.status == "in_progress"]
        assert bool(held) == bool(crashes) or place == "settle.after_commit"
        ran_before = stage.runs()
        cluster.start("worker-1", {ENVIRONMENT: ""})
        counts = await all_finished(storage)
    assert counts == {"done": JOBS}
    found = await rows(storage)
    orphans = {row.id for row in held}
    for job_id in ids:
        row = found[job_id]
        assert row.crashes == (1 if job_id in orphans else 0)
        assert row.attempts == 1 + row.crashes, "every attempt is explained: a crash, then the run that ended well"
        assert stage.runs()[job_id] == 1 + (1 if job_id in orphans and job_id in ran_before else 0)
    if crashes:
        assert orphans
    if reruns:
        assert orphans & set(ran_before)
    if place == "settle.after_commit":
        assert {found[job_id].attempts for job_id in ran_before} <= {1, 2}
    detail = await read(storage, ids[0])
    assert {entry.kind_of_error for entry in detail.history} <= {"lost_worker"}


async def test_jobs_of_a_killed_worker_run_again_within_the_stale_threshold_and_one_reaper_period(
    stage: Stage, storage: Storage
) -> None:
    job_id = await put(storage, "long", 30)
    with stage.cluster(2, slots=2) as cluster:
        await until(lambda: stage.read("start"))
        owner = stage.read("start")[0].pid
        victim = next(name for name in cluster.names if cluster.pid(name) == owner)
        cluster.kill(victim)
        killed = time.monotonic()
        await when(storage, job_id, "done")
    first, second = stage.read("start")
    assert second.pid != owner
    assert second.at - killed >= QUICK.stale_s - 2 * QUICK.heartbeat_s, "not before its owner was silent for so long"
    assert second.at - killed <= QUICK.stale_s + QUICK.reaper_s * 1.1 + 0.5
    assert (first.fence, second.fence) == (1, 3), "one for the claim, one for the revival, one for the claim"
    row = (await read(storage, job_id)).row
    assert (row.attempts, row.crashes) == (2, 1)


async def test_a_worker_that_starts_alone_takes_up_what_a_killed_one_left(stage: Stage, storage: Storage) -> None:
    ids = [await put(storage, "long", 30) for _ in range(3)]
    with stage.cluster(1) as cluster:
        await until(lambda: len(stage.read("start")) == 3)
        cluster.kill("worker-0")
        cluster.start()
        for job_id in ids:
            detail = await when(storage, job_id, "done")
            assert detail.history[0].message.startswith("worker worker-0 stopped heartbeating for ")


async def test_a_job_that_kills_its_worker_ends_dead_after_three_and_takes_nobody_to_death_with_it(
    stage: Stage, storage: Storage
) -> None:
    await storage.queues.ensure("default", QueueChange(backoff_base_s=1))
    poison = await put(storage, "poison", None, priority=-1)
    ids = [await put(storage, "brief", 0.02) for _ in range(20)]
    with stage.cluster(1) as cluster:
        for life in range(3):
            await until(partial(has_been_killed, cluster, f"worker-{life}"), within_s=8)
            cluster.start()
        assert await all_finished(storage) == {"done": 20, "dead": 1}
        assert cluster.exit_status("worker-3") is None
    detail = await read(storage, poison)
    assert (detail.row.dead_reason, detail.row.crashes) == ("crashed", 3)
    assert stage.runs()[poison] == 3
    assert [entry.kind_of_error for entry in detail.history] == ["lost_worker"] * 3
    last = stage.read("start")
    third = [entry for entry in last if entry.job == poison][-1]
    beside = {entry.job for entry in last if entry.pid == third.pid and entry.at < third.at} - {
        entry.job for entry in stage.read("end") if entry.pid == third.pid and entry.at < third.at
    }
    assert beside == {poison} or beside == set(), "its last chance was given to it alone"
    for job_id in ids:
        assert (await read(storage, job_id)).row.crashes <= 2


def has_been_killed(cluster: Cluster, name: str) -> bool:
    return cluster.exit_status(name) == -9
