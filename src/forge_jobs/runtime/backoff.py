"""A kind's own exponential backoff, for the handler option of that name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from forge_jobs import limits
from forge_jobs.storage.backoff import retry_delay
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.types.queue import BackoffPolicy


@dataclass(frozen=True, slots=True)
class Exponential:
    """Waits `base`, then twice that, and so on up to `cap`, each give or take a uniform share of up to `jitter`.

        @handlers.handler("mail", backoff=Exponential(base=2, cap=timedelta(minutes=5)))

    base, cap: seconds or timedelta, 1 s to a day; jitter: 0 to 0.5.

    Raises:
        ConfigError: a number is out of range.
    """

    base: float | timedelta = 5.0
    cap: float | timedelta = 1_800.0
    jitter: float = 0.1

    def __post_init__(self) -> None:
        for name, bounds in (("base", limits.BACKOFF_S), ("cap", limits.BACKOFF_S), ("jitter", limits.JITTER)):
            value = getattr(self, name)
            if type(number := _seconds(value)) not in (int, float) or not bounds[0] <= number <= bounds[1]:
                raise ConfigError(f"backoff {name} {value!r} must be within {bounds[0]:g} … {bounds[1]:g}")

    def __call__(self, attempt: int, error: BaseException | None) -> float:
        policy = BackoffPolicy(base_s=_seconds(self.base), cap_s=_seconds(self.cap), jitter=self.jitter)
        return retry_delay(attempt, policy).total_seconds()


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value
