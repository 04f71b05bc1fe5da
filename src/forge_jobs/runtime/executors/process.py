"""Handlers in child processes: each job has a core of its own, and what kills the child kills no other job.

Children are started fresh, never forked from the worker. They import the registry by its path, and are kept for the
next job.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from forge_jobs.runtime.children import ChildError
from forge_jobs.runtime.executors.executor import Executor
from forge_jobs.runtime.executors.warm_child import NotTaken, WarmChild, start_child
from forge_jobs.runtime.find_registry import split_path
from forge_jobs.runtime.gauges import rss_mib
from forge_jobs.storage.error import ConfigError

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.running import Run

log = logging.getLogger("forge_jobs.processes")

TRIES: Final = 3
"""A child that turns out to be dead when it is given a job costs the job nothing: so many are tried."""


class Processes:
    """The children of one worker process: as many as run at once, one job at a time each. Used on the event loop."""

    def __init__(self, env: RuntimeEnv, registry: str | None) -> None:
        self._env = env
        self._registry = registry
        self._idle: deque[WarmChild] = deque()
        self._closed = False

    async def start(self) -> None:
        """Start a first child if some handler needs one, and see that it can do its work.

        Raises:
            ConfigError: the registry's path is not known, or a child cannot import it or finds other handlers there.
        """
        kinds = self._env.placement.kinds_on(Executor.PROCESS)
        if not kinds:
            return
        try:
            child = await self._start()
        except ChildError as error:
            raise ConfigError(str(error)) from error
        if missing := sorted(set(kinds) - child.kinds):
            child.end()
            raise ConfigError(
                f"{self._registry} as a child process imports it has no handler for kind {missing[0]!r}, "
                "which runs in child processes; register it at the top level of that module, not inside a function or "
                'under `if __name__ == "__main__"`'
            )
        self.came_back(child)

    async def call(self, run: Run, ctx: JobCtx, payload: str) -> Any:
        """What the handler gives or raises, called in a child with this payload, as JSON.

        Raises:
            ChildDied: the child ended before it had answered.
            ChildRaised: what the handler raised, as far as it can be told.
            ChildError: no child could be started.
        """
        for _ in range(TRIES):
            run.pause_timeout()  # the time that a child needs to start is not the handler's
            child = await self._take(run)
            run.resume_timeout()
            try:
                return await child.run(run, ctx, payload)
            except NotTaken:
                continue
            finally:
                if child.usable:
                    self.came_back(child)
        raise ChildError(f"{TRIES} child processes in a row ended before they had a job")

    async def _take(self, run: Run) -> WarmChild:
        while self._idle:
            child = self._idle.popleft()
            if child.usable:
                return child
        child = await self._start()
        try:
            run.cancel.raise_if_cancelled()
        except BaseException:
            self.came_back(child)
            raise
        return child

    async def _start(self) -> WarmChild:
        if self._registry is None:
            kinds = ", ".join(self._env.placement.kinds_on(Executor.PROCESS))
            raise ConfigError(
                f"handlers for kinds {kinds} run in child processes, which import the registry by its path; give it as "
                "QueueRuntime(…, registry='app:handlers')"
            )
        split_path(self._registry)
        return await start_child(self._env, self._registry)

    def came_back(self, child: WarmChild) -> None:
        """A child is free for the next job, unless it has had its share."""
        if self._closed or self._is_worn(child):
            child.close()
        else:
            self._idle.append(child)

    def close(self) -> None:
        """Let the idle children end, and the others when they come back."""
        self._closed = True
        while self._idle:
            self._idle.popleft().close()

    def _is_worn(self, child: WarmChild) -> bool:
        config = self._env.config
        if config.max_jobs_per_child and child.jobs >= config.max_jobs_per_child:
            return True
        return bool(config.max_child_rss_mib) and child.jobs > 0 and rss_mib(child.pid) > config.max_child_rss_mib
