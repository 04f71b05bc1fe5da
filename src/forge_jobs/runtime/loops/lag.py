"""Measures how late the event loop is, and names the handlers that run when it is very late."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop

log = logging.getLogger("forge_jobs.lag")

EVERY_S: Final = 1.0
SAMPLE_S: Final = 0.05
WARN_MS: Final = 1_000


async def tick(env: RuntimeEnv) -> None:
    """Sleep a moment and see how much longer it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(SAMPLE_S)
    env.health.loop_lag_ms = max(loop.time() - began - SAMPLE_S, 0) * 1000
    env.health.loop_lags_ms.add(env.health.loop_lag_ms)
    env.observer.measure("event_loop_lag_seconds", env.health.loop_lag_ms / 1000)
    if env.health.loop_lag_ms > WARN_MS:
        kinds = sorted({run.job.kind for run in env.running})
        log.warning("loop_lag lag_ms=%d running=%s", env.health.loop_lag_ms, ",".join(kinds))


LOOP = Loop("lag", lambda env: EVERY_S, tick)
