"""`/queues` and `/kinds`: looking at queues and what waits in them."""

from __future__ import annotations

from typing import Any

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.describe import describe_every_queue
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page
from forge_jobs.api.model.queue import Queue
from forge_jobs.storage.error import NotFound

router = api_router()


@endpoint(router, "GET", "/queues", role=Role.READ, answer=Page[Queue], tag="queues")
async def list_queues(call: Caller) -> Json:
    """List queues with their settings, jobs and slots."""
    items = await describe_queues(call)
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


@endpoint(router, "GET", "/queues/{name}", role=Role.READ, answer=Queue, tag="queues")
async def show_queue(call: Caller, name: str) -> Json:
    """One queue with its settings, jobs and slots."""
    call.see_queue(name)
    found = [queue for queue in await describe_queues(call) if queue["name"] == name]
    if not found:
        raise NotFound(f"there is no queue {name[:128]!r}")
    return Json(found[0], headers={"ETag": found[0]["etag"]})


async def describe_queues(call: Call) -> list[dict[str, Any]]:
    """Every queue that the caller may see, by name."""
    described = await describe_every_queue(call.storage, await call.processes())
    return [queue for queue in described if call.identity.may_see(queue["name"])]
