"""Acts on schedules."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.etag import SCHEDULE
from forge_jobs.api.identity import Role
from forge_jobs.api.model.job import EnqueueAnswer
from forge_jobs.api.model.queue import NewSchedule, Nothing, PatchSchedule, TriggerBody
from forge_jobs.api.model.queue import Schedule as ScheduleModel
from forge_jobs.api.problem import Problem, invalid
from forge_jobs.api.route.schedules import answer, find_schedule
from forge_jobs.runtime.schedules import trigger
from forge_jobs.storage.types.job import Deduped
from forge_jobs.storage.types.schedule import ScheduleChange, ScheduleDeclaration

router = api_router()
_NULLABLE = frozenset({"queue", "misfire_grace_s", "max_attempts", "dedupe_key", "starts_at", "ends_at", "payload"})


@endpoint(router, "POST", "/schedules", role=Role.OPERATE, answer=ScheduleModel, status=201, tag="schedules")
async def add_schedule(call: Caller, body: NewSchedule) -> Json:
    """Add a schedule."""
    given = {name: getattr(body, name) for name in body.model_fields_set}
    declaration = ScheduleDeclaration(given.pop("name"), given.pop("kind"), given.pop("expr"), **given)
    _check_queue(call, declaration.queue or call.config.router.route(declaration.kind))
    return await answer(call, await call.storage.schedules.add(declaration, actor=call.actor), status=201)


@endpoint(
    router,
    "PATCH",
    "/schedules/{name}",
    role=Role.OPERATE,
    answer=ScheduleModel,
    also={412: "It was changed since."},
    tag="schedules",
)
async def change_schedule(call: Caller, name: str, body: PatchSchedule) -> Json:
    """Change settings of a schedule; what is not given stays. Code does not overwrite what is. With `If-Match` it is
    done only if nobody changed it since."""
    await find_schedule(call, name)
    given: dict[str, Any] = {field: getattr(body, field) for field in body.model_fields_set}
    if not given:
        raise invalid("nothing to change: give a setting such as expr", field="body", reason="missing_field")
    for field, value in given.items():
        if value is None and field not in _NULLABLE:
            raise invalid(f"{field} must not be null; leave it out to keep it", field=field, reason="invalid_type")
    if given.get("queue") is not None:
        _check_queue(call, given["queue"])
    check = SCHEDULE.check(call.request)
    change = ScheduleChange(**given)
    return await answer(call, await call.storage.schedules.change(name, change, check=check, actor=call.actor))


@endpoint(router, "DELETE", "/schedules/{name}", role=Role.OPERATE, status=204, tag="schedules")
async def remove_schedule(call: Caller, name: str) -> Response:
    """Forget a schedule; its jobs stay. Code that declares it brings it back: disable it instead."""
    await find_schedule(call, name)
    await call.storage.schedules.remove(name, actor=call.actor)
    return Response(status_code=204)


@endpoint(router, "POST", "/schedules/{name}/enable", role=Role.OPERATE, answer=ScheduleModel, tag="schedules")
async def enable_schedule(call: Caller, name: str, body: Nothing | None = None) -> Json:
    """Let a schedule fire, from its next tick on."""
    await find_schedule(call, name)
    return await answer(call, await call.storage.schedules.enable(name, actor=call.actor))


@endpoint(router, "POST", "/schedules/{name}/disable", role=Role.OPERATE, answer=ScheduleModel, tag="schedules")
async def disable_schedule(call: Caller, name: str, body: Nothing | None = None) -> Json:
    """Stop a schedule. Code does not turn it on again."""
    await find_schedule(call, name)
    return await answer(call, await call.storage.schedules.disable(name, actor=call.actor))


@endpoint(router, "POST", "/schedules/{name}/reset", role=Role.OPERATE, answer=ScheduleModel, tag="schedules")
async def reset_schedule(call: Caller, name: str, body: Nothing | None = None) -> Json:
    """Undo what operators changed: what code declared last applies. 404 if code never declared it."""
    await find_schedule(call, name)
    return await answer(call, await call.storage.schedules.reset_to_code(name, actor=call.actor))


@endpoint(router, "POST", "/schedules/{name}/trigger", role=Role.OPERATE, answer=EnqueueAnswer, tag="schedules")
async def trigger_schedule(call: Caller, name: str, body: TriggerBody | None = None) -> Json:
    """Enqueue a job of a schedule now. Its ticks are not touched."""
    await find_schedule(call, name)
    outcome = await trigger(
        call.storage,
        call.config.router,
        name,
        force=body is not None and body.force,
        max_attempts=call.config.max_attempts,
        actor=call.actor,
    )
    deduped = isinstance(outcome, Deduped)
    status = outcome.status.value if isinstance(outcome, Deduped) else None
    return Json({"id": outcome.id, "outcome": "deduped" if deduped else "enqueued", "status": status})


def _check_queue(call: Call, queue: str) -> None:
    if not call.identity.may_see(queue):
        raise Problem("forbidden", f"this token may not schedule jobs of queue {queue[:128]!r}", field="queue")
