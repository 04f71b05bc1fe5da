"""`/queues` and `/kinds`: looking at queues and what waits in them."""

from __future__ import annotations

from typing import Any

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page
from forge_jobs.api.model.queue import Queue
from forge_jobs.runtime.unserved import find_unserved
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.queue import QueueCounts
from forge_jobs.view.queue import counts_view, queue_view, shares_view

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
    return Json(found[0])


async def describe_queues(call: Call) -> list[dict[str, Any]]:
    """Every queue that the caller may see, by name."""
    processes = await call.processes()
    live = [row.info for row in processes if row.live]
    hosts = {info.host_id for info in live}
    shares = [share for share in await call.storage.shares.list() if share.host_id in hosts]
    counts = await call.storage.queues.recent_counts()
    unserved = await find_unserved(call.storage, processes, await call.storage.jobs.recent_waiting_kinds())
    described = []
    for queue in await call.storage.queues.list():
        if not call.identity.may_see(queue.name):
            continue
        lacking = [one for one in unserved if one.queue == queue.name]
        own = counts.get(queue.name, QueueCounts())
        described.append(
            {
                **queue_view(queue),
                "counts": counts_view(own),
                **shares_view(queue, shares),
                "slots_open": sum(info.slots.get(queue.name, 0) for info in live),
                "slots_busy": own.in_progress,
                "unserved": any(one.kind is None for one in lacking),
                "unserved_kinds": [one.kind for one in lacking if one.kind is not None],
            }
        )
    return described
