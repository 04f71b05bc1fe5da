"""Schedules for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from forge_jobs.cron_expr import Fire
from forge_jobs.redact import Secrets
from forge_jobs.storage.types.schedule import SETTINGS, Schedule, Tick


def schedule_view(schedule: Schedule, secrets: Secrets) -> dict[str, Any]:
    """A schedule for programs, the secrets of its payload hidden."""
    settings = {name: getattr(schedule.settings, name) for name in SETTINGS}
    settings["payload"] = secrets.value(schedule.settings.kind, settings["payload"])
    differences = {
        name: {"declared": declared, "stored": stored} for name, (declared, stored) in schedule.differences.items()
    }
    if (payload := differences.get("payload")) is not None:  # the kind may be edited as well, so by the rules of all
        differences["payload"] = {whose: secrets.value(None, value) for whose, value in payload.items()}
    return {
        "name": schedule.name,
        **settings,
        "state": str(schedule.state),
        "version": schedule.settings.version,
        "next_fire_at": schedule.next_fire_at,
        "last_fired_at": schedule.last_fired_at,
        "last_outcome": schedule.last_outcome,
        "last_error": schedule.last_error,
        "consecutive_errors": schedule.consecutive_errors,
        "edited": {name: dataclasses.asdict(edit) for name, edit in schedule.edited.items()},
        "differences": differences,
        "created_at": schedule.created_at,
        "updated_at": schedule.updated_at,
        "updated_by": schedule.updated_by,
    }


def fire_view(fire: Fire) -> dict[str, Any]:
    """One tick to come."""
    return {"at": fire.at, "local": fire.local.isoformat(), "odd": None if fire.odd is None else str(fire.odd)}


def tick_view(tick: Tick) -> dict[str, Any]:
    """What became of a tick."""
    return dataclasses.asdict(tick)
