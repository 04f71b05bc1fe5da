"""What a job logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from forge_jobs.ids import JobId

LINES_OF_A_RUN: Final = 1_000_000_000
"""Lines are numbered by this times the fence, so that those of a later run come later."""
STACK_LOGGER: Final = "forge_jobs.stack"
"""The logger of lines that say where a handler was when somebody asked."""


class NewLine(msgspec.Struct, frozen=True):
    """A line as it was logged, cleaned and cut. `number` counts the lines of its run from 1, dropped ones too; so many
    as `skipped` were dropped right before it."""

    at_us: int
    number: int
    level: str
    logger: str
    message: str
    size: int
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """Lines of one run. `ended`: the run's outcome was recorded, so the lines are true though the fence may have moved
    on since."""

    job_id: JobId
    fence: int
    attempt: int
    lines: Sequence[NewLine]
    ended: bool = False


class LogLine(msgspec.Struct, frozen=True):
    """A line of a job's log. `seq` grows with every line of the job; `at_us` is store time. `skipped`: so many lines
    were dropped right before it, as the log is bounded."""

    at_us: int
    job_id: str
    queue: str
    kind: str
    attempt: int
    fence: int
    seq: int
    level: str
    logger: str
    message: str
    skipped: int = 0


def to_trim(newest_first: Sequence[tuple[int, int, int]], lines: int, size: int) -> tuple[int, int] | None:
    """Where to cut a log of `(seq, size, skipped)`: the oldest line that stays, and how many lines are gone before it
    that it does not count yet. None if all may stay. The newest line always stays.
    """
    kept = bytes_kept = 0
    for _, one_size, _ in newest_first:
        if kept and (kept == lines or bytes_kept + one_size > size):
            break
        kept, bytes_kept = kept + 1, bytes_kept + one_size
    gone = newest_first[kept:]
    if not gone:
        return None
    return newest_first[kept - 1][0], sum(1 + skipped for _, _, skipped in gone)
