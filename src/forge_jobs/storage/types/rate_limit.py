"""Rate limits: budgets that the whole cluster shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from forge_jobs import limits
from forge_jobs.names import check_name
from forge_jobs.storage.error import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A scope as it was read.

    `tokens` are what is in its bucket at that moment; `blocked_until` is set while an upstream's word keeps it shut.
    `per_key`: it is the pattern of scopes such as `slack:team-42`, each with a bucket of its own; `template` names the
    pattern of such a one. A refill of 0 is a fixed budget.
    """

    scope: str
    capacity: float
    refill_per_s: float
    per_key: bool = False
    template: str | None = None
    tokens: float
    blocked_until: datetime | None = None
    changed_at: datetime | None = None
    changed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitDeclaration:
    """A limit as code declares it: made with a full bucket where it is missing, and never changed after."""

    scope: str
    capacity: float
    refill_per_s: float
    per_key: bool = False

    def __post_init__(self) -> None:
        check_name(self.scope, "scope")
        check_capacity(self.capacity)
        check_refill(self.refill_per_s)
        if type(self.per_key) is not bool:
            raise InvalidInput(f"per_key {self.per_key!r} must be true or false", field="per_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The tokens are taken. `at` is the store's time of the grant, `remaining` what was left."""

    remaining: float
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing was taken; asking again after `retry_after` may succeed. `known`: the scope exists. It is false."""

    retry_after: timedelta
    known: bool = True

    def __bool__(self) -> bool:
        return False


Acquired: TypeAlias = Granted | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Jobs of a kind are paid for when they are claimed: `cost` tokens of `scope` each."""

    kind: str
    scope: str
    cost: float = 1.0


def check_cost(cost: object, capacity: float | None = None) -> float:
    """`cost` as a number, if one may ask for so much."""
    number = _number(cost, "cost", 0, limits.RATE_CAPACITY)
    if number <= 0:
        raise InvalidInput(f"cost {cost!r} must be more than 0", field="cost", reason="out_of_range")
    if capacity is not None and number > capacity:
        raise InvalidInput(
            f"cost {cost!r} is more than the capacity {capacity:g}: it could never be granted",
            field="cost",
            reason="out_of_range",
        )
    return number


def check_capacity(capacity: object) -> float:
    number = _number(capacity, "capacity", 0, limits.RATE_CAPACITY)
    if number <= 0:
        raise InvalidInput(f"capacity {capacity!r} must be more than 0", field="capacity", reason="out_of_range")
    return number


def check_refill(refill_per_s: object) -> float:
    return _number(refill_per_s, "refill_per_s", 0, limits.RATE_CAPACITY)


def _number(value: object, field: str, least: float, most: float) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type,operator]
        raise InvalidInput(
            f"{field} {repr(value)[:80]} must be a finite number within {least:g} … {most:g}",
            field=field,
            reason="out_of_range" if type(value) in (int, float) else "invalid_type",
        )
    return float(value)  # type: ignore[arg-type]
