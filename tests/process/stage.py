"""Where a process test plays: a database file, a ledger, workers and other programs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from forge_jobs import EnqueueRequest, RuntimeConfig, Storage
from forge_jobs.failpoints import ENVIRONMENT
from forge_jobs.ids import JobId
from forge_jobs.storage.types.job import JobDetail, JobFilter, JobRow
from forge_jobs.testing.cluster import Cluster, until

from . import ledger

TESTS: Final = Path(__file__).parents[1]
WORKER: Final = (sys.executable, "-m", "process.worker_main")
QUICK: Final = RuntimeConfig(
    heartbeat_s=0.1,
    stale_s=1.0,
    reaper_s=0.2,
    supervisor_s=0.1,
    poll_ms=50,
    shutdown_grace_s=0.3,
    cancel_grace_s=0.2,
)
FINISHED: Final = ("done", "dead")


class Stage:
    """One test's folder and the processes in it, on a file of its own unless `url` names another store."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.database = folder / "jobs.db"
        self.url = url or f"sqlite:///{self.database}"
        self.ledger = folder / "ledger"
        self.ledger.mkdir()

    def cluster(
        self,
        workers: int = 1,
        *,
        slots: int = 5,
        config: RuntimeConfig = QUICK,
        failpoints: str = "",
    ) -> Cluster:
        """Workers for the stage's queue, started."""
        return Cluster(
            self.url,
            "process.handlers:handlers",
            folder=self.folder,
            workers=workers,
            slots=slots,
            environment={**settings(config), ledger.DIRECTORY: str(self.ledger), ENVIRONMENT: failpoints},
            command=WORKER,
            directory=TESTS,
        )

    def read(self, *what: str) -> list[ledger.Entry]:
        """What the handlers did so far."""
        return [entry for entry in ledger.read(self.ledger) if not what or entry.what in what]

    def runs(self) -> Counter[str]:
        """How often each job was started."""
        return Counter(entry.job for entry in self.read("start"))

    async def act(self, *argv: object, within_s: float = 20.0, failpoints: str = "") -> tuple[int, list[list[str]]]:
        """Run an actor to its end; its exit status and what it said, split into words."""
        process = await self.begin(*argv, failpoints=failpoints)
        try:
            out, _ = await asyncio.wait_for(process.communicate(), within_s)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return process.returncode, words(out)

    async def begin(
        self, *argv: object, prefix: Sequence[str] = (), failpoints: str = ""
    ) -> asyncio.subprocess.Process:
        """Start an actor."""
        name, *rest = map(str, argv)
        return await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "process.actors", name, self.url, *rest),
            stdout=subprocess.PIPE,
            cwd=TESTS,
            env={**os.environ, ledger.DIRECTORY: str(self.ledger), ENVIRONMENT: failpoints},
        )


def words(out: bytes) -> list[list[str]]:
    return [line.split() for line in out.decode().splitlines()]


def settings(config: RuntimeConfig) -> Mapping[str, str]:
    """A configuration as environment variables."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {f"FORGE_{name.upper()}": f"{value:g}" for name, value in values.items() if isinstance(value, int | float)}


async def put(storage: Storage, kind: str = "brief", payload: Any = 0, **fields: Any) -> JobId:
    """Enqueue one job; its id."""
    outcome = await storage.jobs.enqueue(EnqueueRequest(kind, payload, queue="default", **fields))
    return outcome.id


async def read(storage: Storage, job_id: str) -> JobDetail:
    detail = await storage.jobs.get(JobId(job_id))
    assert detail is not None, f"job {job_id} is gone"
    return detail


async def when(storage: Storage, job_id: JobId, *statuses: str, within_s: float = 6.0) -> JobDetail:
    """The job once it is in one of `statuses`."""

    async def there() -> JobDetail | None:
        detail = await read(storage, job_id)
        return detail if detail.row.status in statuses else None

    found = await until(there, within_s=within_s, what=f"job {job_id} {' or '.join(statuses)}")
    assert found is not None
    return found


async def rows(storage: Storage) -> dict[str, JobRow]:
    """Every job (up to a thousand) by id."""
    page = await storage.jobs.list_jobs(JobFilter(), limit=1_000)
    return {row.id: row for row in page.items}


async def all_finished(storage: Storage, *, within_s: float = 10.0) -> dict[str, int]:
    """Wait until every job is done or dead; how many of each."""

    async def finished() -> dict[str, int] | None:
        counts = await storage.jobs.count(JobFilter())
        return counts if counts and set(counts) <= set(FINISHED) else None

    found = await until(finished, within_s=within_s, what="every job done or dead")
    assert found is not None
    return found
