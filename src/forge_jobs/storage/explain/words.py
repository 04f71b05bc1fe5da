"""Spans and instants in sentences."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from forge_jobs.clock import from_us
from forge_jobs.text import printable, span

ERROR_LENGTH = 200


def span_us(us: int) -> str:
    """The same of microseconds."""
    return span(timedelta(microseconds=max(us, 0)))


def at(instant: datetime | int) -> str:
    """An instant as people read it, in UTC."""
    when = from_us(instant) if isinstance(instant, int) else instant
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def count(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def brief(text: str) -> str:
    """The head of an error in one line."""
    line = printable(text.strip().splitlines()[-1] if text.strip() else "")
    return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 1] + "…"


def names(some: list[str], most: int = 3) -> str:
    """A few names in a row."""
    shown = ", ".join(some[:most])
    return shown if len(some) <= most else f"{shown} and {len(some) - most} more"
