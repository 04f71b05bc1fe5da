"""`/workers`: looking at worker processes."""

from __future__ import annotations

from typing import Any

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.queue import Worker, Workers
from forge_jobs.runtime.unserved import find_unserved
from forge_jobs.storage.error import NotFound
from forge_jobs.view.process import process_view

router = api_router()


@endpoint(router, "GET", "/workers", role=Role.READ, answer=Workers, tag="workers")
async def list_workers(call: Caller) -> Json:
    """List worker processes, and the queues and kinds that none of them serves."""
    items = await describe_workers(call)
    unserved = [
        {"queue": one.queue, "kind": one.kind, "jobs": one.jobs}
        for one in await find_unserved(
            call.storage, await call.processes(), await call.storage.jobs.recent_waiting_kinds()
        )
        if call.identity.may_see(one.queue)
    ]
    return Json({"items": items, "next_cursor": None, "total": len(items), "unserved": unserved})


@endpoint(router, "GET", "/workers/{host_id}", role=Role.READ, answer=Worker, tag="workers")
async def show_worker(call: Caller, host_id: str) -> Json:
    """One worker process."""
    found = [worker for worker in await describe_workers(call) if worker["host_id"] == host_id]
    if not found:
        raise NotFound(f"there is no worker {host_id[:64]!r}")
    return Json(found[0])


async def describe_workers(call: Call) -> list[dict[str, Any]]:
    """Every process that serves a queue which the caller may see."""
    shares = {(share.queue, share.host_id): share for share in await call.storage.shares.list()}
    rows = await call.processes()
    return [
        process_view(row, shares)
        for row in rows
        if call.identity.queues is None or any(call.identity.may_see(queue) for queue in row.info.queues)
    ]
