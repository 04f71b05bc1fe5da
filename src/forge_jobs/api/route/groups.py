"""`/jobs/groups` and `/kinds`: jobs by how they ended, and by what they are."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Asked, Page
from forge_jobs.api.model.job import JobGroup, KindRow
from forge_jobs.redact import redact_text
from forge_jobs.storage.types.job import Death
from forge_jobs.view.fingerprint import fingerprint

router = api_router()
LOOKED_AT: Final = 10_000
"""Groups are of so many of the newest dead jobs."""
IDS_GIVEN: Final = 1_000


class GroupsQuery(Asked):
    """Of which jobs."""

    status: Literal["dead"] = "dead"
    queue: list[str] | None = None


class KindsQuery(Asked):
    """Of which queues; all of them if none is named."""

    queue: list[str] | None = None


@endpoint(router, "GET", "/jobs/groups", role=Role.READ, answer=Page[JobGroup], tag="jobs")
async def groups(call: Caller, asked: Annotated[GroupsQuery, Query()]) -> Json:
    """Dead jobs that ended alike, the most numerous first.

    Of the newest 10 000 dead jobs. `ids` are those of the newest 1 000 jobs of a group, for an act on them.
    """
    queues = _visible(call.identity.queues, asked.queue)
    found: dict[str, list[Death]] = {}
    for death in await call.storage.jobs.deaths(queues, limit=LOOKED_AT):
        found.setdefault(fingerprint(death.error or death.reason or ""), []).append(death)
    items = [_group(mark, deaths) for mark, deaths in found.items()]
    items.sort(key=lambda group: (-group["count"], group["fingerprint"]))
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


@endpoint(router, "GET", "/kinds", role=Role.READ, answer=Page[KindRow], tag="queues")
async def kinds(call: Caller, asked: Annotated[KindsQuery, Query()]) -> Json:
    """Kinds by queue, with their jobs that are not done, and whether a live worker serves them."""
    queues = _visible(call.identity.queues, asked.queue)
    serving = [(set(row.info.queues), set(row.info.kinds)) for row in await call.processes() if row.live]
    items = [
        {
            "queue": one.queue,
            "kind": one.kind,
            "waiting": one.waiting,
            "in_progress": one.in_progress,
            "dead": one.dead,
            "served": any(one.queue in of and one.kind in known for of, known in serving),
        }
        for one in await call.storage.jobs.recent_kinds()
        if queues is None or one.queue in queues
    ]
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


def _visible(own: tuple[str, ...] | None, asked: list[str] | None) -> list[str] | None:
    if own is None:
        return asked
    return list(own) if asked is None else [queue for queue in asked if queue in own]


def _group(mark: str, deaths: list[Death]) -> dict[str, Any]:
    newest = deaths[0]
    return {
        "fingerprint": mark,
        "sample": redact_text(newest.error or newest.reason or ""),
        "count": len(deaths),
        "kinds": sorted({death.kind for death in deaths}),
        "queues": sorted({death.queue for death in deaths}),
        "first": deaths[-1].at,
        "last": newest.at,
        "ids": [death.id for death in deaths[:IDS_GIVEN]],
    }
