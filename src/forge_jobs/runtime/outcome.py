"""What a handler answers: values to return, or the same as exceptions to raise from deep inside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Done:
    """The job is finished. Returning None says the same."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """The upstream refused for now: try again after `retry_after` seconds (0 … 7 days), no attempt burnt.

    Without `retry_after` the queue's curve decides. The queue cools down unless it is configured otherwise or
    `cool_down` is False.
    """

    retry_after: timedelta | float | None = None
    cool_down: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed; the job is retried with backoff until its attempts are spent."""

    message: str = ""


@dataclass(frozen=True, slots=True)
class Dead:
    """The job cannot succeed, retrying is useless."""

    message: str = ""


class ChildDied(Exception):
    """Raised by a handler whose child process died with the job: a crash of the job, not of its worker.

    The message says how it died: "exit 3", "killed by signal 9 (SIGKILL)".
    """


class ChildRaised(Exception):
    """What a handler raised in a child process, as it was read there: the worker has no such exception.

    `final`: it ends the job at once. `delay_s`: what the kind's own backoff makes of it.
    """

    def __init__(
        self, message: str, traceback: str | None, *, final: bool = False, delay_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.traceback = traceback
        self.final = final
        self.delay_s = delay_s


@dataclass(frozen=True, slots=True)
class Released:
    """The run was interrupted; the job goes back with its attempt restored. Told to `after_run` hooks; handlers cannot
    return it."""


JobOutcome: TypeAlias = Done | Throttled | Failed | Dead
RunOutcome: TypeAlias = Done | Throttled | Failed | Dead | Released
"""What becomes of a run, whoever decided it."""


class OutcomeError(Exception):
    """Base of the outcomes in their exception form."""

    outcome: JobOutcome


class DoneError(OutcomeError):
    """Raise to end a run as `Done`."""

    def __init__(self) -> None:
        super().__init__("done")
        self.outcome = Done()


class ThrottledError(OutcomeError):
    """Raise to end a run as `Throttled`."""

    def __init__(self, retry_after: timedelta | float | None = None, cool_down: bool = True) -> None:
        super().__init__(f"throttled, retry after {retry_after}")
        self.outcome = Throttled(retry_after, cool_down)


class FailedError(OutcomeError):
    """Raise to end a run as `Failed`, without a traceback in the history."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.outcome = Failed(message)


class DeadError(OutcomeError):
    """Raise to end a run as `Dead`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.outcome = Dead(message)
