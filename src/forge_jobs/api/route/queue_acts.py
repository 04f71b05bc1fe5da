"""Acts on queues, and on what is finished."""

from __future__ import annotations

import dataclasses
from typing import Any

from starlette.responses import Response

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.etag import QUEUE
from forge_jobs.api.identity import Role
from forge_jobs.api.model.queue import CleanupAnswer, CleanupBody, NewQueue, Nothing, PauseBody
from forge_jobs.api.model.queue import QueueChange as ChangeBody
from forge_jobs.api.model.queue import QueueSettings as SettingsModel
from forge_jobs.api.problem import Problem, invalid
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.queue import QueueChange, QueueSettings
from forge_jobs.view.queue import queue_view

router = api_router()
_NULLABLE = frozenset({"max_workers", "max_pending", "retain_done_days", "retain_dead_days"})


@endpoint(router, "POST", "/queues", role=Role.ADMIN, answer=SettingsModel, status=201, tag="queues")
async def add_queue(call: Caller, body: NewQueue) -> Json:
    """Make a queue before its first job. Values beyond a limit are brought to it, and named in `clamped`."""
    call.see_queue(body.name)
    wanted = _wanted(body)
    if not await call.storage.queues.add(body.name, QueueChange(**wanted), actor=call.actor):
        raise Problem("conflict", f"there is a queue {body.name!r} already", field="name", reason="exists")
    return _stored(await _get(call, body.name), wanted, status=201)


@endpoint(
    router,
    "PATCH",
    "/queues/{name}",
    role=Role.OPERATE,
    answer=SettingsModel,
    also={412: "It was changed since."},
    tag="queues",
)
async def change_queue(call: Caller, name: str, body: ChangeBody) -> Json:
    """Change settings of a queue; what is not given stays. Values beyond a limit are brought to it, and named in
    `clamped`. With `If-Match` it is done only if nobody changed it since."""
    await _get(call, name)
    wanted = _wanted(body)
    if not wanted:
        raise invalid("nothing to change: give a setting such as max_workers", field="body", reason="missing_field")
    check = QUEUE.check(call.request, await call.secrets())
    stored = await call.storage.queues.change(name, QueueChange(**wanted), check=check, actor=call.actor)
    return _stored(stored, wanted)


@endpoint(router, "POST", "/queues/{name}/pause", role=Role.OPERATE, answer=SettingsModel, tag="queues")
async def pause_queue(call: Caller, name: str, body: PauseBody | None = None) -> Json:
    """Stop claims of a queue everywhere. Running handlers are told, unless `signal` is false."""
    await _get(call, name)
    signal = body is None or body.signal
    changed = await call.storage.queues.pause(name, signal=signal, actor=call.actor)
    return _stored(await _get(call, name), {}, changed=changed)


@endpoint(router, "POST", "/queues/{name}/resume", role=Role.OPERATE, answer=SettingsModel, tag="queues")
async def resume_queue(call: Caller, name: str, body: Nothing | None = None) -> Json:
    """Let a paused queue be claimed again."""
    await _get(call, name)
    changed = await call.storage.queues.resume(name, actor=call.actor)
    return _stored(await _get(call, name), {}, changed=changed)


@endpoint(router, "POST", "/queues/{name}/clear-cool-down", role=Role.OPERATE, answer=SettingsModel, tag="queues")
async def clear_cool_down(call: Caller, name: str, body: Nothing | None = None) -> Json:
    """End the wait that a throttled job imposed on its queue."""
    before = await _get(call, name)
    changed = before.throttled_until is not None or before.throttle_attempts > 0
    return _stored(await call.storage.queues.clear_cool_down(name, actor=call.actor), {}, changed=changed)


@endpoint(router, "DELETE", "/queues/{name}", role=Role.ADMIN, status=204, tag="queues")
async def delete_queue(call: Caller, name: str) -> Response:
    """Remove a queue that has no jobs and that no live worker serves."""
    await _get(call, name)
    await call.storage.queues.delete(name, actor=call.actor)
    return Response(status_code=204)


@endpoint(
    router,
    "POST",
    "/maintenance/cleanup",
    role=Role.ADMIN,
    answer=CleanupAnswer,
    also={404: "There is no such queue."},
    tag="store",
)
async def cleanup(call: Caller, body: CleanupBody | None = None) -> Json:
    """Remove what retention lets go, now. Days that are given take the place of those that queues keep."""
    body = body or CleanupBody()
    if call.identity.queues is not None and body.queue is None:
        raise Problem("forbidden", "this token is limited to queues: name one of them", field="queue")
    if body.queue is not None:
        await _get(call, body.queue)
    report = await call.storage.maintenance.cleanup(**body.model_dump(), actor=call.actor)
    return Json(dataclasses.asdict(report))


async def _get(call: Call, name: str) -> QueueSettings:
    found = await call.storage.queues.get(call.see_queue(name)) if name else None
    if found is None:
        raise NotFound(f"there is no queue {name[:128]!r}")
    return found


def _wanted(body: ChangeBody) -> dict[str, Any]:
    """What is given, by the names of `QueueChange`."""
    wanted: dict[str, Any] = {}
    for name in body.model_fields_set - {"name"}:
        value = getattr(body, name)
        if name == "backoff" and value is not None:
            wanted.update({f"backoff_{part}": getattr(value, part) for part in value.model_fields_set})
        else:
            wanted[name] = value
    for name, value in wanted.items():
        if value is None and name not in _NULLABLE:
            raise invalid(f"{name} must not be null; leave it out to keep it", field=name, reason="invalid_type")
    return wanted


def _stored(queue: QueueSettings, wanted: dict[str, Any], *, changed: bool | None = None, status: int = 200) -> Json:
    clamped = sorted(name for name, value in wanted.items() if _kept(queue, name) != value)
    answer = {**queue_view(queue), "etag": QUEUE.tag(queue), "clamped": clamped, "changed": changed}
    return Json(answer, status_code=status, headers=QUEUE.headers(queue))


def _kept(queue: QueueSettings, name: str) -> Any:
    group, _, part = name.partition("_")
    return getattr(queue.backoff, part) if group == "backoff" else getattr(queue, name)
