"""`/jobs/groups`: jobs by how they ended."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Asked, Page
from forge_jobs.api.model.job import JobGroup
from forge_jobs.view.group import LOOKED_AT, groups_view

router = api_router()


class GroupsQuery(Asked):
    """Of which jobs."""

    status: Literal["dead"] = "dead"
    queue: list[str] | None = None


@endpoint(router, "GET", "/jobs/groups", role=Role.READ, answer=Page[JobGroup], tag="jobs")
async def groups(call: Caller, asked: Annotated[GroupsQuery, Query()]) -> Json:
    """Dead jobs that ended alike, the most numerous first.

    Of the newest 10 000 dead jobs. An act on all of a group names its `fingerprint` in its filter; `ids` are those of
    the newest 1 000.
    """
    queues = call.identity.visible(asked.queue)
    items = groups_view(await call.storage.jobs.deaths(queues, limit=LOOKED_AT), await call.secrets())
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})
