"""Says loudly, once a minute, which queues nobody serves and which kinds nobody has a handler for."""

from __future__ import annotations

import logging
from typing import Final

from forge_jobs.observe import tell
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.runtime.unserved import Unserved, find_unserved

log = logging.getLogger("forge_jobs.unserved")

EVERY_S: Final = 60.0


async def tick(env: RuntimeEnv) -> list[Unserved]:
    """Look once, and warn of each."""
    found = await find_unserved(env.storage, await env.storage.processes.list(env.config.stale_after))
    for one in found:
        event = "queue_unserved" if one.kind is None else "kind_unserved"
        tell(log, logging.WARNING, event, queue=one.queue, kind=one.kind, jobs=one.jobs)
    return found


LOOP = Loop("unserved", lambda env: EVERY_S, tick)
