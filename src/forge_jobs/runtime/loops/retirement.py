"""Lets a process that has done its share, or has grown too large, finish what it runs and end."""

from __future__ import annotations

import os

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.gauges import rss_mib
from forge_jobs.runtime.loops.loop import Loop

EVERY_S = 0.5


async def tick(env: RuntimeEnv) -> None:
    """Look whether it is time to take no more jobs and, if that is so, whether all is done."""
    config = env.config
    if not env.retiring and config.max_rss_mib and rss_mib(os.getpid()) > config.max_rss_mib:
        env.retire("max_rss_mib")
    if env.retiring and not len(env.running) and not env.exchanger.unsettled and not env.exchanger.claiming:
        env.stopping.set()


LOOP = Loop("retirement", lambda env: EVERY_S, tick)
