"""A queue's settings and what people are told about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from forge_jobs import limits
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.types.unset import UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffPolicy:
    """The retry curve: `min(base * 2^n, cap)` seconds, give or take `jitter` of it. Off means due at once."""

    enabled: bool = True
    base_s: float = 5.0
    cap_s: float = 1800.0
    jitter: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """One queue. `max_workers` is a total over all processes, null for no total; retention null is for ever."""

    name: str
    max_workers: int | None = None
    retain_done_days: float | None = 7
    retain_dead_days: float | None = 30
    backoff: BackoffPolicy = BackoffPolicy()
    cool_down: bool = True
    max_pending: int | None = None
    throttle_attempts: int = 0
    throttled_until: datetime | None = None
    paused: bool = False
    pause_signal: bool = False
    paused_at: datetime | None = None
    paused_by: str | None = None
    paused_processes: tuple[str, ...] = ()
    updated_at: datetime | None = None
    updated_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """Settings to change; what is not given stays. Values outside their limits are clamped."""

    max_workers: int | None = UNSET
    retain_done_days: float | None = UNSET
    retain_dead_days: float | None = UNSET
    backoff_enabled: bool = UNSET
    backoff_base_s: float = UNSET
    backoff_cap_s: float = UNSET
    backoff_jitter: float = UNSET
    cool_down: bool = UNSET
    max_pending: int | None = UNSET

    def given(self) -> dict[str, Any]:
        """The settings that are given, checked for type and clamped to their limits.

        Raises:
            InvalidInput: a value has the wrong type or is not finite.
        """
        return {f.name: _clamp(f.name, value) for f in fields(self) if (value := getattr(self, f.name)) is not UNSET}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCounts:
    """Jobs of one queue by status, pending split at now, and the age of the oldest job that is ready."""

    ready: int = 0
    scheduled: int = 0
    in_progress: int = 0
    failed: int = 0
    done: int = 0
    dead: int = 0
    oldest_ready_at: datetime | None = None


_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "max_workers": limits.MAX_WORKERS,
    "retain_done_days": limits.RETENTION_DAYS,
    "retain_dead_days": limits.RETENTION_DAYS,
    "backoff_base_s": limits.BACKOFF_S,
    "backoff_cap_s": limits.BACKOFF_S,
    "backoff_jitter": limits.JITTER,
    "max_pending": limits.MAX_PENDING,
}
_INTEGERS: Final = frozenset({"max_workers", "max_pending"})
_NULLABLE: Final = frozenset({"max_workers", "max_pending", "retain_done_days", "retain_dead_days"})


def _clamp(name: str, value: Any) -> Any:
    if value is None and name in _NULLABLE:
        return None
    if name not in _BOUNDS:
        if type(value) is not bool:
            raise InvalidInput(f"{name} {value!r} must be true or false", field=name, reason="invalid_type")
        return value
    legal = (int,) if name in _INTEGERS else (int, float)
    if type(value) not in legal or not math.isfinite(value):
        raise InvalidInput(
            f"{name} {value!r} must be {'a whole number' if name in _INTEGERS else 'a number'}",
            field=name,
            reason="invalid_type",
        )
    low, high = _BOUNDS[name]
    return type(value)(min(max(value, low), high))
