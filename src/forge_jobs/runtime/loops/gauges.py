"""Writes what this process used in the minute that closed, in every process."""

from __future__ import annotations

from typing import Final

from forge_jobs.clock import from_us
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.storage.types.metric import Summary

SAMPLE_S: Final = 10.0
MINUTE_US: Final = 60_000_000


async def tick(env: RuntimeEnv) -> None:
    """Look once more; after a minute's end, write what was seen in it."""
    minute = env.clock.now_us() // MINUTE_US
    closed, env.gauges.minute = env.gauges.minute, minute
    values = _take(env) if closed is not None and closed != minute else {}
    env.gauges.sample()
    if values and closed is not None:
        await env.storage.metrics.record(values, host_id=env.host_id, minute=from_us(closed * MINUTE_US))


def _take(env: RuntimeEnv) -> dict[str, Summary]:
    timed = {
        "loop_lag_ms": env.health.loop_lags_ms.take(),
        "db_read_ms": env.storage.timings.reads.take(),
        "db_write_ms": env.storage.timings.writes.take(),
    }
    return env.gauges.take() | {name: summary for name, summary in timed.items() if summary is not None}


LOOP = Loop("gauges", lambda env: SAMPLE_S, tick)
