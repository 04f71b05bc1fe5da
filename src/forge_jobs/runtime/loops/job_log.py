"""Writes what handlers logged."""

from __future__ import annotations

from typing import Final

from forge_jobs.runtime import job_log
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.storage.protocol import STACK

EVERY_S: Final = 2.0


async def tick(env: RuntimeEnv) -> int:
    """Write what was logged since the last tick; how many lines."""
    job_log.look_again()
    return await env.job_logs.flush()


LOOP = Loop("job_log", lambda env: EVERY_S, tick, wake_on=STACK)
