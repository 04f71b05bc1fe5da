"""Acts on worker processes."""

from __future__ import annotations

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.queue import Asked, Nothing
from forge_jobs.api.problem import Problem
from forge_jobs.api.route.workers import describe_workers
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.process import ProcessWish

router = api_router()


@endpoint(router, "POST", "/workers/{host_id}/quiet", role=Role.ADMIN, answer=Asked, tag="workers")
async def quiet_worker(call: Caller, host_id: str, body: Nothing | None = None) -> Json:
    """Ask a worker to claim nothing more until it is resumed. It learns it with its next heartbeat."""
    return await _ask(call, host_id, ProcessWish.QUIET)


@endpoint(router, "POST", "/workers/{host_id}/resume", role=Role.ADMIN, answer=Asked, tag="workers")
async def resume_worker(call: Caller, host_id: str, body: Nothing | None = None) -> Json:
    """Take back `quiet`, or a `stop` that the worker has not learned of yet."""
    return await _ask(call, host_id, None)


@endpoint(router, "POST", "/workers/{host_id}/stop", role=Role.ADMIN, answer=Asked, tag="workers")
async def stop_worker(call: Caller, host_id: str, body: Nothing | None = None) -> Json:
    """Ask a worker to stop: no new jobs, and handlers are told and get their grace."""
    return await _ask(call, host_id, ProcessWish.STOP)


async def _ask(call: Call, host_id: str, wish: ProcessWish | None) -> Json:
    found = [worker for worker in await describe_workers(call) if worker["host_id"] == host_id]
    if not found:
        raise NotFound(f"there is no worker {host_id[:64]!r}")
    if not all(call.identity.may_see(queue) for queue in found[0]["queues"]):
        raise Problem("forbidden", "this token is limited to queues, and the worker serves others too")
    await call.storage.processes.ask(host_id, wish, actor=call.actor)
    return Json({"host_id": host_id, "wish": None if wish is None else wish.value})
