"""Workers with children are killed and stopped: no child outlives its worker, every job is run again or given back."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from forge_jobs import EnqueueRequest, JobId, Storage
from forge_jobs.storage.types.job import JobDetail
from forge_jobs.testing.cluster import Cluster, until

from .stage import QUICK, TESTS, Stage, read, settings


def worker(stage: Stage) -> Cluster:
    return Cluster(
        stage.url,
        "process.child_handlers:handlers",
        folder=stage.folder,
        workers=1,
        slots=4,
        environment=settings(QUICK),
        directory=TESTS,
    )


def running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def jobs_at_work(storage: Storage, folder: Path) -> list[JobId]:
    """One job in the pool and two commands, one of which ignores SIGTERM, all with their processes running."""
    deaf = f"trap '' TERM; echo $$ > {folder}/deaf; while :; do sleep 1; done"
    outcomes = [
        await storage.jobs.enqueue(EnqueueRequest(kind, payload, queue="default"))
        for kind, payload in (
            ("rude", {"do": "deaf", "note": f"{folder}/note"}),
            ("cmd_exec", {"argv": ["sh", "-c", deaf]}),
            ("cmd_exec", {"argv": ["sh", "-c", f"sleep 60 & echo $! > {folder}/grandchild; wait"]}),
        )
    ]
    names = ("note", "deaf", "grandchild")
    await until(
        lambda: all((folder / name).exists() and (folder / name).read_text() for name in names),
        within_s=15,
        what="all three are at work",
    )
    return [outcome.id for outcome in outcomes]


async def again(storage: Storage, job_id: JobId) -> JobDetail:
    """The job in its next run."""

    async def there() -> JobDetail | None:
        detail = await read(storage, job_id)
        return detail if detail.row.status == "in_progress" and detail.row.crashes == 1 else None

    found = await until(there, within_s=8, what=f"job {job_id} runs again")
    assert found is not None
    return found


async def test_no_child_outlives_a_killed_worker_and_its_jobs_are_revived(
    stage: Stage, storage: Storage, tmp_path: Path
) -> None:
    with worker(stage) as cluster:
        ids = await jobs_at_work(storage, tmp_path)
        family = [p.pid for p in psutil.Process(cluster.pid("worker-0")).children(recursive=True)]
        assert len(family) >= 6  # the guard, two of the pool, two shells, their sleeps
        cluster.kill("worker-0")
        await until(lambda: not any(map(running, family)), within_s=4, what="all are over")
        cluster.start("worker-0")
        for job_id in ids:
            detail = await again(storage, job_id)
            assert [entry.kind_of_error for entry in detail.history] == ["lost_worker"]


@pytest.mark.parametrize("everybody", [False, True], ids=["the worker", "worker and children"])
async def test_a_stopped_worker_ends_its_children_and_gives_their_jobs_back(
    stage: Stage, storage: Storage, tmp_path: Path, everybody: bool
) -> None:
    """With `everybody`, as a service manager does it: SIGTERM to all processes at once."""
    with worker(stage) as cluster:
        ids = await jobs_at_work(storage, tmp_path)
        me = cluster.pid("worker-0")
        family = psutil.Process(me).children(recursive=True)
        for process in family if everybody else []:
            process.send_signal(signal.SIGTERM)
        psutil.Process(me).send_signal(signal.SIGTERM)
        await until(lambda: cluster.exit_status("worker-0") is not None, within_s=12, what="the worker is over")
        assert cluster.exit_status("worker-0") == 0
        assert not any(running(process.pid) for process in family)
        for job_id in ids:
            row = (await read(storage, job_id)).row
            assert (row.status, row.attempts, row.crashes) == ("pending", 0, 0)
