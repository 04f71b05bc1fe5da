"""`/livez` and `/readyz`."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from forge_jobs.api.answer import Json
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Identity
from forge_jobs.api.model.common import Shown
from forge_jobs.runtime.queue_runtime import QueueRuntime
from forge_jobs.storage.error import StorageError

router = api_router()


class Live(Shown):
    """The process answers."""

    status: str


class Ready(Shown):
    """Whether the store answers, and the workers of this process, if it runs any, make progress. `loops` and `store`
    are told to those who may read."""

    status: str
    loops: dict[str, Any] | None = None
    store: str | None = None


@endpoint(router, "GET", "/livez", role=None, answer=Live, tag="health")
async def livez() -> Json:
    """Whether this process answers. The store is not asked."""
    return Json({"status": "ok"})


@endpoint(router, "GET", "/readyz", role=None, answer=Ready, also={503: "It is not."}, tag="health")
async def readyz(request: Request) -> Json:
    """Whether this process can serve: the store answers, and workers in this process claim and beat."""
    storage, identity = request.scope["forge.storage"], request.scope["forge.identity"]
    runtime: QueueRuntime | None = request.scope["forge.config"].runtime
    try:
        await storage.queues.list()
        store = "ok"
    except StorageError:
        store = "does not answer"
    stuck = None if runtime is None else runtime.stuck()
    ready = store == "ok" and stuck is None
    shown: dict[str, Any] = {"status": "ok" if ready else "not_ready", "loops": None, "store": None}
    if isinstance(identity, Identity):
        loops = {} if runtime is None else {name: one.last_error for name, one in runtime.env.health.loops.items()}
        shown.update(store=store, loops={**loops, **({"worker": stuck} if stuck else {})})
    return Json(shown, status_code=200 if ready else 503)
