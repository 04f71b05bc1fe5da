"""Workers that are frozen and thawed, told to stop, or cut off from their store."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing

from forge_jobs import Storage
from forge_jobs.testing.cluster import until

from .stage import QUICK, Stage, put, read, when


async def test_a_worker_frozen_for_twice_the_stale_threshold_changes_nothing_afterwards(
    stage: Stage, storage: Storage
) -> None:
    job_id = await put(storage, "long", 60)
    with stage.cluster(2) as cluster:
        await until(lambda: stage.read("start"))
        owner = next(name for name in cluster.names if cluster.pid(name) == stage.read("start")[0].pid)
        cluster.freeze(owner)
        frozen = time.monotonic()
        settled = await when(storage, job_id, "done")
        await until(lambda: time.monotonic() - frozen > 2 * QUICK.stale_s)
        cluster.thaw(owner)
        thawed = time.monotonic()
        (told,) = await until(lambda: stage.read("told"))
        assert told.note == "lost_ownership"
        assert told.at - thawed <= 3 * QUICK.heartbeat_s, "told within a heartbeat of its return"
        await until(lambda: "outcome was refused" in cluster.log(owner) or "lost_ownership" in cluster.log(owner))
        extra = await put(storage, "brief")
        await when(storage, extra, "done")
        assert cluster.exit_status(owner) is None, "it works on without a restart"
        assert cluster.stop(owner) == 0
    assert [(entry.fence, entry.what) for entry in stage.read("start", "told") if entry.job == job_id] == [
        (1, "start"),
        (3, "start"),
        (1, "told"),
    ]
    after = await read(storage, job_id)
    assert after.row == settled.row, "the late owner changed nothing"
    assert after.history == settled.history


async def test_a_handler_that_ends_as_its_frozen_worker_thaws_is_refused(stage: Stage, storage: Storage) -> None:
    """The result is there before the worker can learn that it lost the job."""
    job_id = await put(storage, "long", 0.4)
    with stage.cluster(2) as cluster:
        await until(lambda: stage.read("start"))
        owner = next(name for name in cluster.names if cluster.pid(name) == stage.read("start")[0].pid)
        cluster.freeze(owner)
        settled = await when(storage, job_id, "done")
        cluster.thaw(owner)
        await until(lambda: [entry for entry in stage.read("end") if entry.fence == 1])
        await until(lambda: "lost_ownership" in cluster.log(owner))
        assert cluster.stop(owner) == 0
    assert (await read(storage, job_id)).row == settled.row


async def test_a_terminated_worker_gives_back_what_does_not_end_in_time_and_exits(
    stage: Stage, storage: Storage
) -> None:
    ids = [await put(storage, "deaf", None) for _ in range(3)]
    with stage.cluster(1, slots=3) as cluster:
        await until(lambda: len(stage.read("start")) == 3)
        began = time.monotonic()
        assert cluster.stop("worker-0") == 0
        took = time.monotonic() - began
    assert QUICK.shutdown_grace_s <= took <= QUICK.shutdown_grace_s + 5
    for job_id in ids:
        row = (await read(storage, job_id)).row
        assert (row.status, row.attempts, row.crashes, row.last_error) == ("pending", 0, 0, None)
    assert len(stage.read("end")) == 3
    assert await storage.processes.list(QUICK.stale_after) == []


async def test_a_terminated_worker_lets_jobs_end_that_end_in_time(stage: Stage, storage: Storage) -> None:
    job_id = await put(storage, "long", 30)
    with stage.cluster(1) as cluster:
        await until(lambda: stage.read("start"))
        waiting = await put(storage, "brief", 0)
        await when(storage, waiting, "done")
        assert cluster.stop("worker-0") == 0
    row = (await read(storage, job_id)).row
    assert (row.status, row.attempts) == ("done", 1)
    assert [entry.note for entry in stage.read("told")] == ["shutdown"]


async def test_a_worker_whose_store_is_locked_fences_itself_and_resumes_without_a_restart(
    stage: Stage, storage: Storage
) -> None:
    job_id = await put(storage, "long", 60)
    with stage.cluster(1) as cluster:
        await until(lambda: stage.read("start"))
        with closing(sqlite3.connect(stage.database, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            locked = time.monotonic()
            (told,) = await until(lambda: stage.read("told"), within_s=7)
        assert told.note == "lost_ownership"
        assert told.at - locked <= QUICK.stale_s + 0.1, "told before anybody else might run the job"
        await when(storage, job_id, "done")
        await when(storage, await put(storage, "brief"), "done")
        assert cluster.exit_status("worker-0") is None
        assert cluster.stop("worker-0") == 0
    assert (await read(storage, job_id)).row.crashes == 0


async def test_a_worker_whose_file_was_replaced_exits_and_says_why(stage: Stage) -> None:
    with stage.cluster(1) as cluster:
        await until(lambda: "worker_started" in cluster.log("worker-0"))
        copy = stage.folder / "copy.db"
        shutil.copy(stage.database, copy)
        copy.replace(stage.database)
        await until(lambda: cluster.exit_status("worker-0") is not None, within_s=8)
        assert cluster.exit_status("worker-0") == 1
        assert "was replaced or deleted" in cluster.log("worker-0")


async def test_a_worker_whose_file_was_deleted_exits_and_makes_no_new_one(stage: Stage) -> None:
    with stage.cluster(1) as cluster:
        await until(lambda: "worker_started" in cluster.log("worker-0"))
        stage.database.unlink()
        await until(lambda: cluster.exit_status("worker-0") is not None, within_s=8)
        assert cluster.exit_status("worker-0") == 1
    assert not stage.database.exists()
