"""The one runner of background loops: it sleeps, jitters, holds the lease, counts and logs, so a tick only does its
work."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from forge_jobs.runtime.env import LoopHealth, RuntimeEnv
from forge_jobs.runtime.lease import Post

log = logging.getLogger("forge_jobs.loops")

JITTER: Final = 0.1
BACKOFF_S: Final = (1.0, 30.0)
WAKE_GAP_S: Final = 0.1
"""However many wakes come, two ticks are this far apart."""


@dataclass(frozen=True, slots=True)
class Loop:
    """A background loop: `tick` runs every `interval_s(env)` seconds, give or take `jitter` of it.

    `leased`: in one process of the cluster, the holder of the lease of the loop's name. `wake_on`: also at once when a
    wake names this. `longest_pause_s`: how long it waits at most after failures.
    """

    name: str
    interval_s: Callable[[RuntimeEnv], float]
    tick: Callable[[RuntimeEnv], Awaitable[Any]]
    leased: bool = False
    wake_on: str | None = None
    jitter: float = JITTER
    longest_pause_s: float = BACKOFF_S[1]


async def run_loop(env: RuntimeEnv, loop: Loop) -> None:
    """Run the loop until cancelled. A fault is logged, counted and shown, and the loop goes on."""
    health = env.health.loops.setdefault(loop.name, LoopHealth())
    post = Post(env, loop.name) if loop.leased else None
    woken = asyncio.Event()
    if loop.wake_on is not None:
        env.listeners[loop.wake_on].append(woken)
    failures = 0
    while True:
        interval = loop.interval_s(env)
        if failures:
            interval = min(max(interval, BACKOFF_S[0] * 2 ** min(failures - 1, 10)), loop.longest_pause_s)
        try:
            await _pause(interval * random.uniform(1 - loop.jitter, 1 + loop.jitter), woken, post, failures)  # noqa: S311
            health.runs += 1
            if post is None or await post.hold():
                await loop.tick(env)
        except Exception as error:
            failures += 1
            health.errors += 1
            health.last_error = f"{type(error).__name__}: {error}"
            env.observer.count("loop_errors", loop.name)
            env.observer.happened("loop_fault", loop=loop.name, error=error)
            log.warning("loop_fault loop=%s error=%s", loop.name, health.last_error, exc_info=error)
        else:
            failures = 0
            health.last_success_us = env.clock.now_us()
        health.leading = post is not None and post.lease is not None


async def _pause(seconds: float, woken: asyncio.Event, post: Post | None, failures: int) -> None:
    """Sleep, or less when woken, unless the last tick failed. A lease that is held is kept meanwhile."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while (left := began + seconds - loop.time()) > 0:
        if post is not None and post.lease is not None:
            left = min(left, post.renewal_s)
        try:
            async with asyncio.timeout(left):
                await woken.wait()
        except TimeoutError:
            if post is not None and post.lease is not None:
                await post.hold()
            continue
        woken.clear()
        if not failures:
            await asyncio.sleep(max(began + WAKE_GAP_S - loop.time(), 0))
            return
