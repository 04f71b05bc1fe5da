"""Measures how late the event loop is, and names the handlers that run when it is very late."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.executors.executor import Executor
from forge_jobs.runtime.loops.loop import Loop

log = logging.getLogger("forge_jobs.lag")

EVERY_S: Final = 1.0
WARN_MS: Final = 1_000


async def tick(env: RuntimeEnv, seconds: float = EVERY_S) -> None:
    """Sleep and see how much longer it took. The next tick follows at once, so that nothing goes unseen.

    Handlers on threads and in child processes cannot be what keeps the event loop; the others are named, also those
    that have ended meanwhile.
    """
    loop = asyncio.get_running_loop()
    began, before = loop.time(), _on_the_loop(env)
    await asyncio.sleep(seconds)
    env.health.loop_lag_ms = max(loop.time() - began - seconds, 0) * 1000
    env.health.loop_lags_ms.add(env.health.loop_lag_ms)
    env.observer.measure("event_loop_lag_seconds", env.health.loop_lag_ms / 1000)
    if env.health.loop_lag_ms > WARN_MS:
        kinds = sorted(before | _on_the_loop(env))
        log.warning("loop_lag lag_ms=%d running=%s", env.health.loop_lag_ms, ",".join(kinds))


def _on_the_loop(env: RuntimeEnv) -> set[str]:
    return {run.job.kind for run in env.running if run.handler.executor is Executor.ASYNC}


LOOP = Loop("lag", lambda env: 0.0, tick)
