"""Takes jobs back from workers that fell silent, on every process, without a lease: the row decides."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from forge_jobs.runtime.env import LONG_SILENCE, RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import Revived

log = logging.getLogger("forge_jobs.reaper")

PAGE: Final = 100
EXPIRE_PAGE: Final = 500


async def tick(env: RuntimeEnv) -> list[Revived]:
    """One round: revive stale jobs, end expired ones, forget dead processes.

    A process that could not beat itself reaps nothing for a while: after an outage of the store the live owners
    must get the chance to beat first.
    """

    def allowed() -> bool:
        return not (env.beat_overdue or env.just_back)

    if not allowed():
        return []
    revived: list[Revived] = []
    while True:
        page = await env.storage.jobs.revive_stale(
            env.config.stale_after, limit=PAGE, max_crashes=env.max_crashes, allowed=allowed
        )
        revived += page
        for job in page:
            env.observer.count("reaped", job.queue)
            env.observer.happened("reaped", job_id=job.job_id, queue=job.queue, kind=job.kind, status=job.status)
            log.warning("reaped job_id=%s kind=%s queue=%s status=%s", job.job_id, job.kind, job.queue, job.status)
        if len(page) < PAGE:
            break
    while await env.storage.jobs.expire_due(limit=EXPIRE_PAGE) == EXPIRE_PAGE:
        pass
    await env.storage.processes.prune(env.config.stale_after * LONG_SILENCE)
    env.health.counts["reaped"] += len(revived)
    return revived


async def reap_stale_jobs(storage: Storage, stale_after: timedelta = timedelta(seconds=30)) -> list[Revived]:
    """One-shot: revive every job whose owner has been silent for `stale_after`; ids and new statuses."""
    revived: list[Revived] = []
    while page := await storage.jobs.revive_stale(stale_after, limit=PAGE):
        revived += page
    return revived


LOOP = Loop("reaper", lambda env: env.config.reaper_s, tick)
