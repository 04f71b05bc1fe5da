"""Removes what retention lets go, in one process of the cluster."""

from __future__ import annotations

import logging

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop

log = logging.getLogger("forge_jobs.cleanup")


async def tick(env: RuntimeEnv) -> None:
    """One sweep."""
    report = await env.storage.maintenance.cleanup()
    if report.done or report.dead:
        log.info("cleaned_up done=%d dead=%d events=%d", report.done, report.dead, report.events)


LOOP = Loop("cleanup", lambda env: env.config.cleanup_s, tick, leased=True)
