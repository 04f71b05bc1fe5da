"""The options of a handler: how jobs of its kind are run. They are checked when it is registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

from forge_jobs import limits
from forge_jobs.names import check_name
from forge_jobs.runtime.rate_limit import CostOf, Price, ScopeOf
from forge_jobs.storage.error import ConfigError

Backoff: TypeAlias = "Sequence[float] | Callable[[int, BaseException | None], float]"
CANCEL_GRACE_S: Final = (0, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """How jobs of a kind are run.

    executor: `async` on the event loop, `thread`, or `process`: a child process. By default an `async def` runs on the
    event loop, a plain function on a thread, unless the worker has an executor for the job's queue.
    timeout: seconds (1 ms … 115 d) after which a run is ended and counts as failed; none by default.
    max_attempts: runs before a job is dead (1 … 1000), for requests that name none. backoff: a list of delays in
    seconds (the last repeats) or a callable `(attempt, error) -> seconds`, in place of the queue's curve.
    retry_on: only these exceptions are retried. dead_on: these end the job at once. cancel_grace: seconds between the
    signal of a cancel or timeout and the end of a handler that ignores it. queue: where requests without a queue
    go. max_crashes: crashes after which a job is dead (1 … 100). rate_limit: the scope that each run is paid from, or a
    function of the payload that gives it (None is free); cost: how many tokens (1), or a function of the payload. A job
    that cannot be paid for waits without a slot. bad_payload: what a payload that cannot be read makes of a run:
    `failed`, as a deploy may mend the handler, or `dead`. redact: keys whose values people do not get to see, besides
    the usual ones.
    """

    executor: str | None = None
    timeout: float | timedelta | None = None
    max_attempts: int | None = None
    backoff: Backoff | None = None
    retry_on: tuple[type[BaseException], ...] | None = None
    dead_on: tuple[type[BaseException], ...] = ()
    cancel_grace: float | None = None
    queue: str | None = None
    max_crashes: int | None = None
    rate_limit: ScopeOf | None = None
    cost: CostOf = 1.0
    bad_payload: Literal["failed", "dead"] = "failed"
    redact: tuple[str, ...] = ()
    price: Price | None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.timeout is not None:
            _seconds("timeout", self.timeout, limits.TIMEOUT_S)
        if self.cancel_grace is not None:
            _seconds("cancel_grace", self.cancel_grace, CANCEL_GRACE_S)
        _within("max_attempts", self.max_attempts, limits.MAX_ATTEMPTS)
        _within("max_crashes", self.max_crashes, limits.MAX_CRASHES)
        if self.queue is not None:
            check_name(self.queue, "queue")
        _check_backoff(self.backoff)
        if self.rate_limit is not None:
            object.__setattr__(self, "price", Price(self.rate_limit, self.cost))
        if self.bad_payload not in ("failed", "dead"):
            raise ConfigError(f"bad_payload {self.bad_payload!r} must be 'failed' or 'dead'")
        if not isinstance(self.redact, tuple) or not all(isinstance(key, str) for key in self.redact):
            raise ConfigError(f"redact {self.redact!r} must be a list of keys")
        for name, classes in (("retry_on", self.retry_on or ()), ("dead_on", self.dead_on)):
            if not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
                raise ConfigError(f"{name} {classes!r} must be exception classes")

    @property
    def timeout_s(self) -> float | None:
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else self.timeout


def options_of(kind: str, options: dict[str, Any]) -> HandlerOptions:
    """The options given for a kind.

    Raises:
        ConfigError: one is unknown or out of range.
    """
    legal = {f.name for f in dataclasses.fields(HandlerOptions) if f.init}
    for name in options:
        if name not in legal:
            from forge_jobs.config import unknown_key

            raise ConfigError(f"handler for kind {kind!r}: {unknown_key(name, legal)}")
    for name in ("retry_on", "dead_on"):
        if name in options and not isinstance(options[name], Sequence):
            options[name] = (options[name],)
        if name in options:
            options[name] = tuple(options[name])
    if isinstance(redact := options.get("redact"), (str, list, set, frozenset)):
        options["redact"] = (redact,) if isinstance(redact, str) else tuple(redact)
    try:
        return HandlerOptions(**options)
    except ConfigError as error:
        raise ConfigError(f"handler for kind {kind!r}: {error}") from error


def _seconds(name: str, value: object, bounds: tuple[float, float]) -> None:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if type(seconds) not in (int, float) or not bounds[0] <= seconds <= bounds[1]:  # type: ignore[operator]
        raise ConfigError(
            f"{name} {repr(value)[:80]} must be seconds or a timedelta within {bounds[0]:g} … {bounds[1]:g} s"
        )


def _check_backoff(backoff: object) -> None:
    if backoff is None or callable(backoff):
        return
    if isinstance(backoff, str) or not isinstance(backoff, Sequence) or not backoff:
        raise ConfigError(f"backoff {backoff!r} must be a list of at least one delay in seconds, or a callable")
    for delay in backoff:
        _seconds("backoff delay", delay, (0, limits.BACKOFF_S[1]))


def _within(name: str, value: object, bounds: tuple[int, int]) -> None:
    if value is not None and (type(value) is not int or not bounds[0] <= value <= bounds[1]):
        raise ConfigError(f"{name} {value!r} is not a whole number within {bounds[0]} … {bounds[1]}")
