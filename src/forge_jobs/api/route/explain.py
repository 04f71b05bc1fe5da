"""Why a job does not run, or a queue or a schedule stands still."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Shown
from forge_jobs.api.route.jobs import find_job
from forge_jobs.api.route.schedules import find_schedule
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.view.blocker import blocker_view

router = api_router()


class BlockerModel(Shown):
    """One thing that stands in the way. `remedy` is what to do."""

    code: str
    text: str
    since: datetime | None
    until: datetime | None
    remedy: str | None


class Explanation(Shown):
    """What stands in the way, most final first; never empty."""

    items: list[BlockerModel]


@endpoint(router, "GET", "/jobs/{id:job}/explain", role=Role.READ, answer=Explanation, tag="jobs")
async def explain_job(call: Caller, id: str) -> Json:
    """Why a job does not run at the moment; `ready` if the next claim takes it."""
    job = (await find_job(call, id)).row
    blockers = await call.storage.jobs.explain(job.id, stale_after=call.config.stale_after)
    return await _shown(call, blockers, job.kind)


@endpoint(router, "GET", "/queues/{name}/explain", role=Role.READ, answer=Explanation, tag="queues")
async def explain_queue(call: Caller, name: str) -> Json:
    """Why nothing of a queue runs."""
    if await call.storage.queues.get(call.see_queue(name)) is None:
        raise NotFound(f"there is no queue {name[:128]!r}")
    return await _shown(call, await call.storage.queues.explain(name, stale_after=call.config.stale_after))


@endpoint(router, "GET", "/schedules/{name}/explain", role=Role.READ, answer=Explanation, tag="schedules")
async def explain_schedule(call: Caller, name: str) -> Json:
    """Why a schedule does not fire."""
    await find_schedule(call, name)
    return await _shown(call, await call.storage.schedules.explain(name, stale_after=call.config.stale_after))


async def _shown(call: Call, blockers: Sequence[Blocker], kind: str = "") -> Json:
    secrets = await call.secrets()
    return Json({"items": [blocker_view(blocker, secrets, kind) for blocker in blockers]})
