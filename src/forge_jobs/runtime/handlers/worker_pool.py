"""Runs the jobs of a kind in child processes that live on from job to job, in whatever language they are written.

    handlers.register(WorkerPool("resize", ["node", "resize.js"], size=4, timeout=60))

A child reads one JSON object per line, does the job, and writes one: `line_protocol.py` has the words.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forge_jobs import limits
from forge_jobs.names import check_name
from forge_jobs.runtime.children import ChildError
from forge_jobs.runtime.context import run_of
from forge_jobs.runtime.handlers.child_pool import ChildPool
from forge_jobs.runtime.handlers.line_protocol import request_line
from forge_jobs.runtime.handlers.pooled_child import NotTaken
from forge_jobs.runtime.outcome import Dead, Failed, JobOutcome
from forge_jobs.storage.error import ConfigError, InvalidPayload

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.env import RuntimeEnv

TIMEOUT_S: Final = 600


class WorkerPool:
    """A handler for jobs of `kind`: each worker process keeps `size` children running `argv`, never through a shell.

    A job takes the child that is idle longest, or waits for one; `timeout` (seconds, 1 or more) covers the wait. The
    children start with the worker and are started again when they end. Their environment is PATH, HOME, LANG and TZ,
    what `inherit` names, and `env`. A child that answers without the job's id is out of step, unless `require_id`
    is False. `max_jobs_per_child` and `max_rss_mib` (of the child alone, Linux) replace a child between two jobs.

    Raises:
        ConfigError: a setting is not legal.
    """

    def __init__(
        self,
        kind: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        size: int = 1,
        timeout: float | timedelta = TIMEOUT_S,
        require_id: bool = True,
        max_jobs_per_child: int | None = None,
        max_rss_mib: int | None = None,
        inherit: Iterable[str] = (),
    ) -> None:
        self.kind = check_name(kind, "kind")
        self.argv = _argv(argv, kind)
        self.env = dict(env or {})
        self.cwd = None if cwd is None else os.fspath(cwd)
        self.size = _whole("size", size, kind, limits.CHILDREN_PER_POOL[1])
        self.require_id = require_id
        self.max_jobs_per_child = _whole_or_none("max_jobs_per_child", max_jobs_per_child, kind)
        self.max_rss_mib = _whole_or_none("max_rss_mib", max_rss_mib, kind)
        self.inherit = tuple(inherit)
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if type(seconds) not in (int, float) or not 1 <= seconds <= limits.TIMEOUT_S[1]:
            raise ConfigError(f"worker pool {kind!r}: timeout {timeout!r} must be 1 … {limits.TIMEOUT_S[1]} seconds")
        if max_rss_mib is not None and not Path("/proc/self/statm").exists():
            raise ConfigError(f"worker pool {kind!r}: max_rss_mib needs /proc, which this system does not have")
        self.handler_options: Mapping[str, Any] = {"timeout": seconds, "executor": "async"}
        self._pools: dict[str, ChildPool] = {}  # by host id: a registry may serve several runtimes

    async def run(self, ctx: JobCtx, payload: Any) -> JobOutcome:
        """Have a child run the job.

        Raises:
            ChildDied: the child ended while it had the job.
        """
        try:
            pool = self._pools.get(ctx.host_id) or await self._start(run_of(ctx).env)
            while True:
                child = await pool.take(ctx.cancel)
                try:
                    request = _request(ctx, payload)
                except Unspeakable as error:
                    pool.returned(child)
                    return Dead(f"payload: {error}")
                try:
                    return await child.run(ctx, request)
                except NotTaken:
                    continue
        except ChildError as error:
            return Failed(str(error))

    async def runtime_started(self, env: RuntimeEnv) -> None:
        """Start the children.

        Raises:
            ConfigError: they cannot be started.
        """
        try:
            await self._start(env)
        except ChildError as error:
            raise ConfigError(f"worker pool {self.kind!r}: {error}") from error

    async def runtime_stopping(self, env: RuntimeEnv) -> None:
        pool = self._pools.get(env.host_id)
        if pool is not None:
            try:
                await pool.stop()
            finally:
                self._pools.pop(env.host_id, None)

    async def _start(self, env: RuntimeEnv) -> ChildPool:
        pool = self._pools[env.host_id] = ChildPool(self, env.children)
        try:
            await pool.start()
        except BaseException:
            self._pools.pop(env.host_id, None)
            raise
        return pool

    def __repr__(self) -> str:
        return f"WorkerPool({self.kind!r}, {list(self.argv)!r}, size={self.size})"


class Unspeakable(Exception):
    """A payload that no line can carry."""


def _request(ctx: JobCtx, payload: Any) -> bytes:
    try:
        line = request_line(
            ctx.job_id, payload, kind=ctx.kind, attempt=ctx.attempt, fence=ctx.fence, deadline_s=ctx.left_s()
        )
    except InvalidPayload as error:  # damaged in the store, such as a number that became infinite
        raise Unspeakable(str(error)) from error
    if line is None:
        raise Unspeakable(f"it does not fit into a line of {limits.CHILD_LINE_BYTES} bytes for the worker")
    return line


def _argv(argv: object, kind: str) -> tuple[str, ...]:
    if isinstance(argv, str) or not isinstance(argv, Sequence) or not argv:
        raise ConfigError(f"worker pool {kind!r}: argv {argv!r} must be a list with at least the program")
    if not all(isinstance(part, str) for part in argv):
        raise ConfigError(f"worker pool {kind!r}: argv {argv!r} must hold strings only")
    return tuple(argv)


def _whole_or_none(name: str, value: object, kind: str) -> int | None:
    return None if value is None else _whole(name, value, kind)


def _whole(name: str, value: object, kind: str, most: int | None = None) -> int:
    if type(value) is not int or value < 1 or (most is not None and value > most):
        bounds = "1 or more" if most is None else f"1 … {most}"
        raise ConfigError(f"worker pool {kind!r}: {name} {value!r} must be a whole number, {bounds}")
    return value
