"""Rate limits as handlers see them: `ctx.rate_limit`, and the price of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from forge_jobs.names import check_name
from forge_jobs.storage.error import ConfigError, InvalidInput
from forge_jobs.storage.types.rate_limit import (
    Acquired,
    Gate,
    Granted,
    RateLimitDeclaration,
    Refused,
    check_cost,
)

if TYPE_CHECKING:
    from forge_jobs.runtime.cancel import CancelToken
    from forge_jobs.storage.protocol import RateLimitStore

PRESETS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {"slack": (50.0, 50 / 60), "gh": (5000.0, 5000 / 3600)}
)
"""Capacity and refill per second of limits that many programs need; used only by whoever asks for one by name."""

ScopeOf: TypeAlias = "str | Callable[[Any], str | None]"
CostOf: TypeAlias = "float | Callable[[Any], float]"


class RateLimiter(Protocol):
    """Budgets by scope that the whole cluster shares."""

    async def acquire(self, scope: str, cost: float = 1, *, wait: bool | float | timedelta = False) -> Acquired: ...

    async def drain(self, scope: str, retry_after: float | timedelta | None = None) -> bool: ...


class StoreRateLimiter:
    """Implements `RateLimiter` on a store. `cancel` and `left_s` are those of the run that waits, if one does."""

    def __init__(
        self,
        store: RateLimitStore,
        cancel: CancelToken | None = None,
        left_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._store = store
        self._cancel = cancel
        self._left_s = left_s

    async def acquire(self, scope: str, cost: float = 1, *, wait: bool | float | timedelta = False) -> Acquired:
        """Take `cost` tokens of `scope`: `Granted`, or `Refused` with when to ask again.

        With `wait` a refused caller waits for its turn: for so many seconds at most or, with True, until the handler's
        timeout; it is refused at once when that is too short, and as soon as the job is asked to stop.

        Raises:
            InvalidInput: the cost is not a number above 0, or more than the capacity.
        """
        limit_s = _limit_s(wait, self._left_s())
        if limit_s == 0:
            return await self._store.acquire(scope, cost)
        loop = asyncio.get_running_loop()
        deadline = None if limit_s is None else loop.time() + limit_s
        while True:
            answer = await self._store.acquire(scope, cost, park=True)
            if isinstance(answer, Granted):
                return answer
            pause_s = answer.retry_after.total_seconds()
            if deadline is not None and loop.time() + pause_s > deadline:
                return answer
            if await self._stopped_within(pause_s):
                return answer

    async def drain(self, scope: str, retry_after: float | timedelta | None = None) -> bool:
        """Empty the bucket, and with a hint keep it shut for so long, as an upstream's 429 asks.

        False: there is no such scope.
        """
        return await self._store.drain(scope, retry_after)

    async def _stopped_within(self, seconds: float) -> bool:
        """Sleep; True, and at once, if the job is asked to stop."""
        if self._cancel is None:
            await asyncio.sleep(seconds)
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._cancel.wait()
        except TimeoutError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Price:
    """What a job of a kind costs: constants, or functions of its payload. A scope of None is free."""

    scope: ScopeOf
    cost: CostOf = 1.0

    def __post_init__(self) -> None:
        try:
            if not callable(self.scope):
                check_name(self.scope, "rate_limit")
            if not callable(self.cost):
                check_cost(self.cost)
        except InvalidInput as error:
            raise ConfigError(str(error)) from error

    def gate(self, kind: str) -> Gate | None:
        """The gate of a kind whose jobs all cost the same; None if that depends on the payload."""
        if callable(self.scope) or callable(self.cost):
            return None
        return Gate(kind=kind, scope=self.scope, cost=float(self.cost))

    def of(self, payload: Any) -> tuple[str, float] | None:
        """Scope and cost of one job; None if it is free.

        Raises:
            InvalidInput: a function gave something that is neither.
            Exception: whatever a function raises.
        """
        scope = self.scope(payload) if callable(self.scope) else self.scope
        if scope is None:
            return None
        cost = self.cost(payload) if callable(self.cost) else self.cost
        return check_name(scope, "rate_limit"), check_cost(cost)


def declare(scope: str, capacity: float | None, refill_per_s: float | None, *, per_key: bool) -> RateLimitDeclaration:
    """A limit from its numbers, or from the preset of its name.

    Raises:
        ConfigError: a number is missing and there is no preset, or it is out of range.
    """
    if capacity is None and refill_per_s is None and scope in PRESETS:
        capacity, refill_per_s = PRESETS[scope]
    if capacity is None or refill_per_s is None:
        raise ConfigError(
            f"rate limit {scope!r} needs capacity and refill_per_s; only {', '.join(sorted(PRESETS))} have a preset"
        )
    try:
        return RateLimitDeclaration(scope=scope, capacity=capacity, refill_per_s=refill_per_s, per_key=per_key)
    except InvalidInput as error:
        raise ConfigError(f"rate limit {scope!r}: {error}") from error


def check_affordable(kind: str, price: Price, limits: Mapping[str, RateLimitDeclaration]) -> None:
    """A job that costs more than its bucket can hold would wait for ever.

    Raises:
        ConfigError: it would.
    """
    gate = price.gate(kind)
    if gate is not None and gate.scope in limits and gate.cost > limits[gate.scope].capacity:
        raise ConfigError(
            f"handler for kind {kind!r}: cost {gate.cost:g} is more than the capacity "
            f"{limits[gate.scope].capacity:g} of rate limit {gate.scope!r}: it could never be granted"
        )


def _limit_s(wait: bool | float | timedelta, left_s: float | None) -> float | None:
    """How long to wait at most: 0 is not at all, None without end."""
    if wait is False:
        return 0.0
    if wait is True:
        return left_s
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if type(seconds) not in (int, float) or not seconds >= 0:
        raise InvalidInput(f"wait {wait!r} must be true, false, seconds or a timedelta", field="wait")
    return seconds if left_s is None else min(seconds, left_s)


__all__ = ["PRESETS", "Acquired", "Gate", "Granted", "Price", "RateLimiter", "Refused", "StoreRateLimiter"]
