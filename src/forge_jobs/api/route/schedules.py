"""`/schedules`: looking at schedules, their ticks, and when an expression would fire."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Query

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.etag import SCHEDULE, redacted
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page, PageQuery
from forge_jobs.api.model.queue import Fires, PreviewSchedule
from forge_jobs.api.model.queue import Schedule as ScheduleModel
from forge_jobs.api.model.queue import Tick as TickModel
from forge_jobs.clock import from_us, to_us
from forge_jobs.cron_expr import parse
from forge_jobs.runtime.schedules import fires_after, is_led, undeclared, why_silent
from forge_jobs.storage.error import InvalidInput, NotFound
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.storage.types.schedule import Schedule
from forge_jobs.view.schedule import fire_view, tick_view

router = api_router()
FIRES_SHOWN: Final = 10


@endpoint(router, "GET", "/schedules", role=Role.READ, answer=Page[ScheduleModel], tag="schedules")
async def list_schedules(call: Caller) -> Json:
    """List schedules with their next ticks."""
    found = [one for one in await call.storage.schedules.list() if visible(call, one)]
    items = await describe(call, found)
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


@endpoint(router, "POST", "/schedules/preview", role=Role.READ, answer=Fires, tag="schedules", changes=False)
async def preview(call: Caller, body: PreviewSchedule) -> Json:
    """When an expression would fire. Nothing is stored."""
    asked = parse(body.expr, body.zone, body.gap, body.fold)
    fires = asked.preview(call.now, body.n)
    return Json({"items": [fire_view(fire) for fire in fires], "in_words": asked.in_words})


@endpoint(router, "GET", "/schedules/{name}", role=Role.READ, answer=ScheduleModel, tag="schedules")
async def show_schedule(call: Caller, name: str) -> Json:
    """One schedule with its next ticks, and how it differs from what code declares."""
    return await answer(call, await find_schedule(call, name))


@endpoint(router, "GET", "/schedules/{name}/ticks", role=Role.READ, answer=Page[TickModel], tag="schedules")
async def ticks(call: Caller, name: str, asked: Annotated[PageQuery, Query()]) -> Json:
    """What became of a schedule's ticks, newest first. They are kept for 30 days, also of a schedule that was
    removed."""
    from forge_jobs.api.cursor import read_position, write_position

    before = from_us(read_position(asked.cursor)) if asked.cursor else None
    found = await call.storage.schedules.ticks(name, limit=asked.limit + 1, before=before)
    if not found or call.identity.queues is not None:
        await find_schedule(call, name)
    shown = found[: asked.limit]
    return Json(
        {
            "items": [tick_view(tick) for tick in shown],
            "next_cursor": write_position(to_us(shown[-1].fire_at)) if len(found) > asked.limit else None,
            "total": await call.storage.schedules.count_ticks(name),
            "total_at_least": None,
        }
    )


async def find_schedule(call: Call, name: str) -> Schedule:
    """The schedule, if there is one that the caller may see."""
    schedule = await call.storage.schedules.get(name)
    if schedule is None or not visible(call, schedule):
        raise NotFound(f"there is no schedule {name[:128]!r}")
    return schedule


def visible(call: Call, schedule: Schedule) -> bool:
    settings = schedule.settings
    return call.identity.may_see(settings.queue or call.config.router.route(settings.kind))


async def answer(call: Call, schedule: Schedule, *, status: int = 200) -> Json:
    return Json((await describe(call, [schedule]))[0], status_code=status, headers=SCHEDULE.headers(schedule))


async def describe(call: Call, schedules: list[Schedule]) -> list[dict[str, Any]]:
    """Schedules as they are shown."""
    processes = await call.processes()
    lost = undeclared(schedules, processes)
    led = await is_led(call.storage)
    return [_shown(call, one, lost=one.name in lost, led=led) for one in schedules]


def _shown(call: Call, schedule: Schedule, *, lost: bool, led: bool) -> dict[str, Any]:
    try:
        fires = fires_after(schedule.settings, call.now, FIRES_SHOWN) if schedule.settings.enabled else []
        in_words = parse(schedule.settings.expr, schedule.settings.zone).in_words
    except InvalidInput:  # its expression cannot be read any more; its state says so
        fires, in_words = [], None
    return {
        **redacted(schedule),
        "etag": SCHEDULE.tag(schedule),
        "in_words": in_words,
        "undeclared": lost,
        "why_silent": why_silent(schedule, led=led),
        "next_fires": [fire_view(fire) for fire in fires],
    }


__all__ = ["ProcessRow", "describe", "find_schedule", "router"]
