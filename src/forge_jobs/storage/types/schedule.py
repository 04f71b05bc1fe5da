"""Schedules: what is to be enqueued at which times, and what became of each of their ticks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from forge_jobs.ids import JobId
from forge_jobs.storage.types.job import EnqueueRequest
from forge_jobs.storage.types.unset import UNSET


@dataclass(frozen=True, slots=True)
class ScheduleDeclaration:
    """A schedule as code or an operator asks for it. A version lower than the stored one changes nothing.

    queue: the router's if not given. zone: an IANA name. gap: `shift` or `skip` a reading that the clock leaves out;
    fold: the `first`, `second` or `both` passes of one that comes twice. misfire: of ticks that are late the `latest`
    fires; `skip` lets a tick fire only if it is at most misfire_grace_s late (60); `all(n)` fires the newest n. A
    misfire_grace_s that is given bounds all three. skip_if_running: no job while the last one waits or runs; by
    dedupe_key if it is given. jitter_s: a job is due up to so much after its tick. Ticks are at or after starts_at and
    before ends_at. max_attempts: the handler's, or the worker's, if not given.
    """

    name: str
    kind: str
    expr: str
    payload: Any = field(default_factory=dict)
    _: KW_ONLY
    queue: str | None = None
    zone: str = "UTC"
    gap: str = "shift"
    fold: str = "first"
    misfire: str = "latest"
    misfire_grace_s: float | None = None
    enabled: bool = True
    max_attempts: int | None = None
    priority: int = 0
    dedupe_key: str | None = None
    skip_if_running: bool = False
    jitter_s: float = 0.0
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    version: int = 0


SETTINGS: Final = tuple(f.name for f in fields(ScheduleDeclaration) if f.name not in ("name", "version"))
"""What can be declared and edited."""
TIMING: Final = frozenset({"expr", "zone", "gap", "fold", "starts_at", "ends_at"})
"""What the next tick depends on: a change of it finds the next one anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChange:
    """What an operator changes; what is not given stays."""

    kind: str = UNSET
    expr: str = UNSET
    payload: Any = UNSET
    queue: str | None = UNSET
    zone: str = UNSET
    gap: str = UNSET
    fold: str = UNSET
    misfire: str = UNSET
    misfire_grace_s: float | None = UNSET
    enabled: bool = UNSET
    max_attempts: int | None = UNSET
    priority: int = UNSET
    dedupe_key: str | None = UNSET
    skip_if_running: bool = UNSET
    jitter_s: float = UNSET
    starts_at: datetime | None = UNSET
    ends_at: datetime | None = UNSET

    def given(self) -> dict[str, Any]:
        """The settings that are given."""
        return {name: value for name in SETTINGS if (value := getattr(self, name)) is not UNSET}


class ScheduleState(StrEnum):
    """Whether a schedule fires. `invalid`: its expression or zone cannot be read any more; `finished`: no tick is left
    before its `ends_at`."""

    ACTIVE = "active"
    DISABLED = "disabled"
    INVALID = "invalid"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Who changed a setting, and when. Code does not overwrite it."""

    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule as it is stored.

    `settings` is what applies, `declared` what code declared last (None: only operators know it), in the form of
    `ScheduleDeclaration`; `edited` names the settings that operators changed. `last_fired_at` is the newest tick that
    made a job. `revision` grows with every change of a setting or the state.
    """

    name: str
    settings: ScheduleDeclaration
    state: ScheduleState
    revision: int
    next_fire_at: datetime | None
    last_fired_at: datetime | None
    last_outcome: str | None
    last_error: str | None
    consecutive_errors: int
    declared: ScheduleDeclaration | None
    edited: Mapping[str, Edit]
    created_at: datetime
    updated_at: datetime
    updated_by: str | None

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Settings that differ from what code declared last: declared, and what applies."""
        if self.declared is None:
            return {}
        pairs = {name: (getattr(self.declared, name), getattr(self.settings, name)) for name in SETTINGS}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSchedules:
    """Active schedules to look at now, by name: due ones, and those whose next tick is not known. `next_due`: when the
    soonest of the others is due."""

    schedules: tuple[Schedule, ...]
    next_due: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTick:
    """What is to become of a tick: a job, or, without a request, it is skipped for `reason`, with all ticks up to
    `through`."""

    fire_at: datetime
    request: EnqueueRequest | None = None
    reason: str | None = None
    through: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """The due ticks of a schedule as it was read, and when its next one is (None: it has none any more)."""

    schedule: Schedule
    ticks: tuple[PlannedTick, ...]
    next_fire_at: datetime | None


class TickOutcome(StrEnum):
    """What became of a tick. One that met an error is tried again."""

    FIRED = "fired"
    SKIPPED = "skipped"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One tick of a schedule, or a range of skipped ones up to `through`. At most one row for each `fire_at`.

    `job_id` is the job that was made, or that held the key. `at` is when it was decided.
    """

    schedule: str
    fire_at: datetime
    through: datetime | None
    outcome: TickOutcome
    reason: str | None
    job_id: JobId | None
    at: datetime
