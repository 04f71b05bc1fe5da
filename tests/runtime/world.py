"""A store in a file, a registry, and worker processes in miniature: runtimes on the event loop of the test."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime, RuntimeConfig, Storage
from forge_jobs.ids import JobId
from forge_jobs.storage.types.job import JobDetail, JobRow
from forge_jobs.testing.cluster import until

QUICK: Final = RuntimeConfig(
    heartbeat_s=0.1,
    stale_s=1.0,
    reaper_s=0.2,
    supervisor_s=0.05,
    poll_ms=20,
    shutdown_grace_s=0.3,
    cancel_grace_s=0.1,
)


class World:
    """What a runtime test needs, in words that keep the tests short."""

    def __init__(self, storage: Storage, database: Path | None) -> None:
        self.storage = storage
        self.handlers = HandlerRegistry()
        self._database = database
        self._runtimes: list[QueueRuntime] = []

    def runtime(self, slots: int | None = 1, *, config: RuntimeConfig = QUICK, **options: Any) -> QueueRuntime:
        """A runtime that is not started yet; `options` are those of `QueueRuntime`."""
        runtime = QueueRuntime(self.storage, self.handlers, slots=slots, config=config, **options)
        self._runtimes.append(runtime)
        return runtime

    async def work(self, slots: int | None = 1, *, config: RuntimeConfig = QUICK, **options: Any) -> QueueRuntime:
        """A runtime at work."""
        runtime = self.runtime(slots, config=config, **options)
        await runtime.start()
        return runtime

    async def close(self) -> None:
        for runtime in self._runtimes:
            if runtime._env is not None:
                await runtime.stop(0)

    async def put(self, kind: str, payload: Any = None, *, queue: str = "default", **fields: Any) -> JobId:
        """Enqueue one job; its id."""
        outcome = await self.storage.jobs.enqueue(EnqueueRequest(kind, payload, queue=queue, **fields))
        return outcome.id

    async def detail(self, job_id: JobId) -> JobDetail:
        detail = await self.storage.jobs.get(job_id)
        assert detail is not None, f"job {job_id} is gone"
        return detail

    async def row(self, job_id: JobId) -> JobRow:
        return (await self.detail(job_id)).row

    async def when(
        self,
        job_id: JobId,
        *statuses: str,
        within_s: float = 5.0,
        and_also: Callable[[JobRow], bool] = lambda row: True,
    ) -> JobDetail:
        """The job once it is in one of `statuses`."""

        async def there() -> JobDetail | None:
            detail = await self.detail(job_id)
            return detail if detail.row.status in statuses and and_also(detail.row) else None

        try:
            return await until(there, within_s=within_s, what=f"job {job_id} {' or '.join(statuses)}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {(await self.row(job_id)).status}") from None

    async def works_on(self) -> None:
        """A slot is free for an ordinary job, and it runs."""

        @self.handlers.handler("ordinary")
        async def ordinary(ctx: JobCtx) -> None: ...

        await self.when(await self.put("ordinary", priority=-1), "done")

    def damage(self, job_id: JobId, column: str, value: object) -> None:
        """Write into the row of a job behind everybody's back."""
        assert self._database is not None
        with closing(sqlite3.connect(self._database)) as foreign, foreign:
            foreign.execute(f"UPDATE forge_jobs SET {column} = ? WHERE id = ?", (value, job_id))

    def damage_schedule(self, name: str, settings: str) -> None:
        """Write other settings into the row of a schedule behind everybody's back."""
        assert self._database is not None
        with closing(sqlite3.connect(self._database)) as foreign, foreign:
            foreign.execute("UPDATE forge_schedules SET settings = ? WHERE name = ?", (settings, name))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another program holds the write lock of the file."""
        assert self._database is not None
        foreign = sqlite3.connect(self._database, isolation_level=None)
        try:
            foreign.execute("BEGIN IMMEDIATE")
            yield
        finally:
            foreign.close()


def scaled(**changes: Any) -> RuntimeConfig:
    """The quick timings with some others."""
    return replace(QUICK, **changes)
