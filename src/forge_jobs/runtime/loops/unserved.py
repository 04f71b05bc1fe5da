"""Says loudly, once a minute, which queues nobody serves, which kinds nobody has a handler for, and which rate limits
of its own handlers do not exist."""

from __future__ import annotations

import logging
from typing import Final

from forge_jobs.observe import tell
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.runtime.unserved import Unserved, find_unserved, unknown_scopes

log = logging.getLogger("forge_jobs.unserved")

EVERY_S: Final = 60.0


async def tick(env: RuntimeEnv) -> list[Unserved]:
    """Look once, and warn of each."""
    found = await find_unserved(env.storage, await env.storage.processes.list(env.config.stale_after))
    for one in found:
        if one.kind is None:
            tell(log, logging.WARNING, "queue_unserved", queue=one.queue, jobs=one.jobs)
        else:
            tell(log, logging.WARNING, "kind_unserved", queue=one.queue, kind=one.kind, jobs=one.jobs)
    await _tell_unknown_scopes(env)
    return found


async def _tell_unknown_scopes(env: RuntimeEnv) -> None:
    wanted = {gate.scope for gate in env.handlers.gates()}
    if wanted:
        for scope in sorted(unknown_scopes(wanted, await env.storage.rate_limits.list())):
            tell(log, logging.WARNING, "rate_scope_unknown", scope=scope)


LOOP = Loop("unserved", lambda env: EVERY_S, tick)
