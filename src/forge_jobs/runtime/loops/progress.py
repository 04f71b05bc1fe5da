"""Writes the newest progress of running jobs, at most once a second each."""

from __future__ import annotations

from typing import Final

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop

EVERY_S: Final = 1.0


async def tick(env: RuntimeEnv) -> None:
    """Write what was reported since the last tick."""
    for run in env.running:
        if (due := run.take_progress()) is not None:
            current, total, message = due
            await env.storage.jobs.set_progress(
                run.job.id, run.job.fence, current=current, total=total, message=message
            )


LOOP = Loop("progress", lambda env: EVERY_S, tick)
