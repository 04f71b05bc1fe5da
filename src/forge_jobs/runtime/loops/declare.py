"""Tells the store what code says of its kinds: what their payloads are, and what of them people must not see."""

from __future__ import annotations

import logging

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop

log = logging.getLogger("forge_jobs.kinds")

EVERY_S = 1.0
"""How soon a kind that was registered while the worker runs is told of."""


async def tick(env: RuntimeEnv) -> list[str]:
    """Tell what was registered since the last time; the kinds of which that was news to the store."""
    version = env.handlers.version
    if version == env.declared_version:
        return []
    news = await env.storage.kinds.declare(env.handlers.declarations(), host_id=env.host_id)
    env.declared_version = version
    if news:
        log.info("kinds_declared kinds=%s", ",".join(news))
    return news


LOOP = Loop("declare", lambda env: EVERY_S, tick)
