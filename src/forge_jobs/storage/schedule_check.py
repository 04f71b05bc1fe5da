"""From a schedule as it is asked for to its stored form: every setting is checked before the store is touched."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from forge_jobs import limits
from forge_jobs.clock import from_us
from forge_jobs.cron_expr import Fold, Gap, parse
from forge_jobs.names import check_name
from forge_jobs.payload import decode_payload
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.request import check_request
from forge_jobs.storage.types.job import EnqueueRequest
from forge_jobs.storage.types.schedule import SETTINGS, ScheduleDeclaration

SKIP_GRACE_S: Final = 60.0
"""How late a tick may fire under `skip`, if the schedule does not say."""
VERSION: Final = (0, 2**53)
_MISFIRE = re.compile(r"latest|skip|all\((\d{1,9})\)", re.ASCII)
_NOWHERE: Final = "default"
"""Stands in for a queue that the router will name."""


def check_declaration(declaration: ScheduleDeclaration, payload_max: int = limits.PAYLOAD_MAX_BYTES) -> dict[str, Any]:
    """The stored form of a declaration's settings.

    Raises:
        InvalidInput: or a subclass, naming field, value and rule.
    """
    check_name(declaration.name, "schedule")
    _whole(declaration.version, "version", VERSION)
    return check_settings({name: getattr(declaration, name) for name in SETTINGS}, payload_max)


def check_settings(settings: Mapping[str, Any], payload_max: int = limits.PAYLOAD_MAX_BYTES) -> dict[str, Any]:
    """The stored form of a full set of settings: payload as text, instants as microseconds."""
    job = check_request(
        EnqueueRequest(
            settings["kind"],
            settings["payload"],
            queue=_NOWHERE if settings["queue"] is None else settings["queue"],
            priority=settings["priority"],
            max_attempts=settings["max_attempts"],
            dedupe_key=settings["dedupe_key"],
        ),
        payload_max=payload_max,
    )
    parse(settings["expr"], settings["zone"], settings["gap"], settings["fold"])
    misfire(settings["misfire"])
    starts_at, ends_at = instant(settings["starts_at"], "starts_at"), instant(settings["ends_at"], "ends_at")
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        raise InvalidInput(
            f"ends_at {settings['ends_at'].isoformat()} is not after starts_at {settings['starts_at'].isoformat()}",
            field="ends_at",
            reason="out_of_range",
        )
    grace = settings["misfire_grace_s"]
    return {
        **{name: settings[name] for name in SETTINGS},
        "expr": settings["expr"].strip(),
        "gap": Gap(settings["gap"]).value,
        "fold": Fold(settings["fold"]).value,
        "payload": job.payload,
        "misfire_grace_s": None if grace is None else _seconds(grace, "misfire_grace_s", limits.MISFIRE_GRACE_S),
        "jitter_s": _seconds(settings["jitter_s"], "jitter_s", limits.SCHEDULE_JITTER_S),
        "enabled": _flag(settings["enabled"], "enabled"),
        "skip_if_running": _flag(settings["skip_if_running"], "skip_if_running"),
        "starts_at": starts_at,
        "ends_at": ends_at,
    }


def read_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stored form. One that is missing, from before it existed, has its default."""
    found = {name: stored[name] for name in SETTINGS if name in stored}
    for name in ("starts_at", "ends_at"):
        if found.get(name) is not None:
            found[name] = from_us(found[name])
    try:
        found["payload"] = decode_payload(found["payload"])
    except ValueError:
        found["payload"] = json.dumps(found["payload"])
    return found


def misfire(text: object) -> tuple[str, int]:
    """The policy for late ticks and how many of them fire at most: `latest`, `skip` or `all(n)`.

    Raises:
        InvalidInput: it is none of these, or n is out of range.
    """
    found = _MISFIRE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise InvalidInput(
            f"misfire {text!r} must be latest, skip or all(n), such as all(10)", field="misfire", reason="invalid_value"
        )
    if found[1] is None:
        return found[0], 1 if found[0] == "latest" else limits.MISFIRE_ALL[1]
    return "all", _whole(int(found[1]), "misfire all(n)", limits.MISFIRE_ALL, field="misfire")


def instant(value: object, field: str) -> int | None:
    """An aware datetime as microseconds."""
    if value is None:
        return None
    request = EnqueueRequest("x", queue="x", run_at=value)  # type: ignore[arg-type]
    try:
        return check_request(request).run_at_us
    except InvalidInput as error:
        error.args = (str(error).replace("run_at", field, 1),)
        error.field = field
        raise


def _whole(value: object, name: str, bounds: tuple[int, int], *, field: str | None = None) -> int:
    if type(value) is not int or not bounds[0] <= value <= bounds[1]:
        raise InvalidInput(
            f"{name} {repr(value)[:80]} is not a whole number within {bounds[0]} … {bounds[1]}",
            field=field or name,
            reason="out_of_range" if type(value) is int else "invalid_type",
        )
    return value


def _seconds(value: object, name: str, bounds: tuple[float, float]) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not bounds[0] <= value <= bounds[1]:  # type: ignore[arg-type,operator]
        raise InvalidInput(
            f"{name} {repr(value)[:80]} is not a number of seconds within {bounds[0]} … {bounds[1]}",
            field=name,
            reason="out_of_range" if type(value) in (int, float) else "invalid_type",
        )
    return float(value)  # type: ignore[arg-type]


def _flag(value: object, name: str) -> bool:
    if type(value) is not bool:
        raise InvalidInput(f"{name} {value!r} must be true or false", field=name, reason="invalid_type")
    return value
