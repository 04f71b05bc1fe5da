"""`/livez` and `/readyz`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from forge_jobs.api.answer import Json
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Identity
from forge_jobs.api.model.common import Shown
from forge_jobs.runtime.queue_runtime import QueueRuntime
from forge_jobs.storage.error import StorageError

router = api_router()
NO_WORKER: Final[Mapping[str, Any]] = {"problems": [], "heartbeat": None, "loops": {}}


class Live(Shown):
    """The process answers."""

    status: str


class Ready(Shown):
    """Whether the store answers, and the worker of this process, if it runs one, makes progress: its heartbeats are
    taken, and its idle slots have asked for jobs. All but `status` is told only to those who may read; `problems` say
    what keeps it, `heartbeat` is null without a worker."""

    status: str
    problems: list[str] | None = None
    heartbeat: Heartbeat | None = None
    loops: dict[str, LoopState] | None = None
    store: str | None = None


class Heartbeat(Shown):
    """The worker's last heartbeat that the store took."""

    age_s: float
    fenced: bool


class LoopState(Shown):
    """A background loop of the worker; `leading`: for all workers."""

    last_success_us: int | None
    errors: int
    leading: bool


@endpoint(router, "GET", "/livez", role=None, answer=Live, tag="health")
async def livez() -> Json:
    """Whether this process answers. The store is not asked."""
    return Json({"status": "ok"})


@endpoint(router, "GET", "/readyz", role=None, answer=Ready, also={503: "It is not."}, tag="health")
async def readyz(request: Request) -> Json:
    """Whether this process can serve: the store answers, and a worker in this process claims and beats."""
    storage, identity = request.scope["forge.storage"], request.scope["forge.identity"]
    runtime: QueueRuntime | None = request.scope["forge.config"].runtime
    try:
        await storage.queues.list()
        store = "ok"
    except StorageError:
        store = "does not answer"
    worker = NO_WORKER if runtime is None else runtime.readiness(asyncio.get_running_loop().time())
    problems = [*worker["problems"], *(() if store == "ok" else ("the store does not answer",))]
    status = "not_ready" if problems else "ok"
    told = isinstance(identity, Identity)
    shown = {**worker, "status": status, "problems": problems, "store": store} if told else {"status": status}
    return Json(shown, status_code=503 if problems else 200)
