"""Telling the `on_dead` hooks of jobs whose death this process has recorded, beside its other work."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from forge_jobs.ids import JobId
from forge_jobs.storage.types.job import JobStatus

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv

log = logging.getLogger("forge_jobs.hooks")

WAITING_MAX: Final = 1_000
"""Deaths that wait to be told; more are dropped, logged and counted."""
HOOK_S: Final = 30.0
"""How long one `on_dead` hook may take."""
LAST_S: Final = 2.0
"""How long a shutdown waits for what was not told yet."""


class Deaths:
    """The deaths that the hooks have not heard of yet, oldest first."""

    def __init__(self, env: RuntimeEnv) -> None:
        self._env = env
        self._waiting: asyncio.Queue[JobId] = asyncio.Queue(WAITING_MAX)
        self._task: asyncio.Task[None] | None = None

    def note(self, job_id: JobId) -> None:
        """The store may have it that this job is dead."""
        if not self._env.handlers.hooks.dead:
            return
        try:
            self._waiting.put_nowait(job_id)
        except asyncio.QueueFull:
            self._env.health.counts["on_dead_dropped"] += 1
            log.error("on_dead_dropped job_id=%s: %d deaths wait for slow hooks already", job_id, WAITING_MAX)

    def start(self) -> None:
        """Begin to tell."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="forge-deaths")

    async def stop(self) -> None:
        """Tell what is not told yet, for a moment at most, then end."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(LAST_S):
                await self._waiting.join()
        except TimeoutError:
            log.error("on_dead_dropped jobs=%d: the worker stops", self._waiting.qsize() + 1)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            job_id = await self._waiting.get()
            try:
                await self._tell(job_id)
            finally:
                self._waiting.task_done()

    async def _tell(self, job_id: JobId) -> None:
        try:
            job = await self._env.storage.jobs.get(job_id)
        except Exception as error:
            self._fault("reading the job", job_id, error)
            return
        if job is None or job.row.status != JobStatus.DEAD:  # somebody was faster: deleted, or run again
            return
        for hook in self._env.handlers.hooks.dead:
            try:
                async with asyncio.timeout(HOOK_S):
                    await hook(self._env.state, job.row)
            except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
                self._fault(hook.name, job_id, error)

    def _fault(self, hook: str, job_id: JobId, error: BaseException) -> None:
        self._env.health.counts["hook_faults"] += 1
        log.error("hook_fault hook=on_dead name=%s job_id=%s", hook, job_id, exc_info=error)
