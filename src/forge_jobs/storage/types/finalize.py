"""What the runtime made of a handler's outcome, and what the store answers to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

import msgspec

from forge_jobs.ids import JobId
from forge_jobs.storage.types.job import DeadReason, ErrorKind, JobRecord, JobStatus


@dataclass(frozen=True, slots=True)
class ErrorText:
    """Why a run failed: the cause chain in one line, and the traceback if there is one. Cut when stored."""

    message: str
    traceback: str | None = None
    kind: ErrorKind = ErrorKind.FAILED


@dataclass(frozen=True, slots=True)
class Done:
    """The job is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """The upstream refused: due again after `delay`, no attempt burnt.

    `cool_down` opens the queue's cool-down window if the queue is so configured; `hinted` says that `delay`
    came from the upstream, so that the window's curve is not raised beyond its first step. `scope` is the rate limit
    that the job was paid from: it is drained, and stays shut for `delay` if that was a hint.
    """

    delay: timedelta
    hinted: bool
    cool_down: bool = True
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed: due again after `delay`, or dead when the attempts are spent."""

    error: ErrorText
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Dead:
    """The handler says that retrying cannot help."""

    error: ErrorText


@dataclass(frozen=True, slots=True)
class Released:
    """The run was interrupted or never started: back to pending with its attempt restored.

    With a `delay`, a rate limit had no tokens for it: due again then.
    """

    delay: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """The child process that ran the job died, or its worker did."""

    error: ErrorText
    delay: timedelta
    max_crashes: int


FinalizeOutcome: TypeAlias = Done | Throttled | Failed | Dead | Released | Crashed


class Finalize(msgspec.Struct, frozen=True):
    """One finalize: the claim it belongs to and what became of it.

    With the record of the claim at hand a batch of Done is one statement; without it each row is read first.
    A struct, like the record, because one is built for every job run.
    """

    job_id: JobId
    fence: int
    outcome: FinalizeOutcome
    job: JobRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """The row is now in `status`; `dead_reason` is set exactly when that is `dead`."""

    status: JobStatus
    dead_reason: DeadReason | None = None


APPLIED_DONE: Final = Applied(status=JobStatus.DONE)
"""The answer to nearly every finalize; one object for all, as it says nothing of its own."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """An earlier try of the same finalize had already been committed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The fence is not current, or the row is gone. Nothing was changed, nothing was recorded."""


Settled: TypeAlias = Applied | Repeated | Lost
