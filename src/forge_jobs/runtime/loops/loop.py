"""The one runner of background loops: it sleeps, jitters, counts and logs, so a tick only does its work."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from forge_jobs.runtime.env import LoopHealth, RuntimeEnv

log = logging.getLogger("forge_jobs.loops")

JITTER: Final = 0.1
BACKOFF_S: Final = (1.0, 30.0)


@dataclass(frozen=True, slots=True)
class Loop:
    """A background loop: `tick` runs every `interval_s(env)` seconds, give or take 10 %."""

    name: str
    interval_s: Callable[[RuntimeEnv], float]
    tick: Callable[[RuntimeEnv], Awaitable[Any]]


async def run_loop(env: RuntimeEnv, loop: Loop) -> None:
    """Run the loop until cancelled. A fault is logged, counted and shown, and the loop goes on."""
    health = env.health.loops.setdefault(loop.name, LoopHealth())
    failures = 0
    while True:
        interval = loop.interval_s(env)
        if failures:
            interval = min(max(interval, BACKOFF_S[0] * 2 ** min(failures - 1, 10)), BACKOFF_S[1])
        await asyncio.sleep(interval * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311
        health.runs += 1
        try:
            await loop.tick(env)
        except Exception as error:
            failures += 1
            health.errors += 1
            health.last_error = f"{type(error).__name__}: {error}"
            log.warning("loop_fault loop=%s error=%s", loop.name, health.last_error, exc_info=error)
        else:
            failures = 0
            health.last_success_us = env.clock.now_us()
