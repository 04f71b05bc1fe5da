"""Fences this process when its heartbeats were refused, or hang, for too long by its own clock."""

from __future__ import annotations

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop


async def tick(env: RuntimeEnv) -> None:
    """See how long the heart has been silent. On the event loop, since the heart's own thread may hang."""
    env.heartbeat.check_silence()


LOOP = Loop("fence", lambda env: env.config.heartbeat_s / 4, tick)
