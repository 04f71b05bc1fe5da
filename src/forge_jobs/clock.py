"""Where time comes from: the host in production, a hand on the dial in tests.

Two readings, never mixed. `now_us` is the wall clock in microseconds of UTC: it is stored and shown.
`elapsed_us` is a clock that only goes forward and runs on in suspend (CLOCK_BOOTTIME on Linux): it
measures how long something has been silent. It means nothing in another boot, hence `boot`.
"""

from __future__ import annotations

import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SHARED_CLOCK = "FORGE_TEST_CLOCK"
"""Names to a worker the file of the clock that a test moves: `forge_jobs.testing.SharedClock`."""


class Clock(Protocol):
    """What the store and the runtime read time from."""

    boot: int
    """Identity of this boot of the host: `elapsed_us` of two boots cannot be compared."""

    def now_us(self) -> int:
        """The wall clock: microseconds since 1970, UTC."""

    def elapsed_us(self) -> int:
        """Microseconds on a clock that never goes back and runs on in suspend."""


class SystemClock:
    """The host's clocks."""

    def __init__(self) -> None:
        self.boot = _boot_identity()
        self._elapsed_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def elapsed_us(self) -> int:
        return time.clock_gettime_ns(self._elapsed_id) // 1000


class ManualClock:
    """A clock that moves only when told. Shared by a store and the runtime in tests."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now_us = to_us(start)
        self._elapsed_us = 1_000_000_000
        self.boot = 1

    def now_us(self) -> int:
        return self._now_us

    def elapsed_us(self) -> int:
        return self._elapsed_us

    def now(self) -> datetime:
        """The wall reading as an aware datetime."""
        return from_us(self._now_us)

    def advance(self, duration: timedelta | float | str) -> None:
        """Let time pass on both readings: seconds, a timedelta, or text such as `2h`."""
        step = duration_us(duration)
        if step < 0:
            raise ValueError(f"time cannot pass backwards: {duration!r}; use step() to move the wall clock")
        self._now_us += step
        self._elapsed_us += step

    def step(self, duration: timedelta | float) -> None:
        """Set the wall clock forward or back without time passing, as an operator or NTP does."""
        self._now_us += duration_us(duration)

    def reboot(self) -> None:
        """Begin a new boot: the elapsed clock starts anew and the boot identity changes."""
        self.boot += 1
        self._elapsed_us = 1_000_000


def to_us(instant: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (instant - EPOCH) // MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC datetime of a stored instant."""
    return EPOCH + timedelta(microseconds=us)


_RFC_3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


class NaiveTime(ValueError):
    """A time without its zone, which could be any instant of a day."""


def parse_instant(text: str) -> datetime:
    """Read an RFC 3339 instant such as `2026-03-01T09:30:00Z`.

    Raises:
        NaiveTime: it has no offset.
        ValueError: it is not one.
    """
    found = _RFC_3339.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an RFC 3339 instant such as 2026-03-01T09:30:00Z")
    if found[2] is None:
        raise NaiveTime(f"{text!r} has no time zone; end it with Z for UTC, or an offset such as +02:00")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{text!r} is not an instant: {error}") from None


def format_instant(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as JSON carries it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_UNITS_S = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_duration(text: str) -> timedelta:
    """Read `90`, `90s`, `5m`, `2h`, `7d` or `250ms`.

    Raises:
        ValueError: the text is not a number followed by one of these units.
    """
    number = text.strip().rstrip("smhd")
    unit = text.strip()[len(number) :]
    if unit not in _UNITS_S or not number.replace(".", "", 1).isascii() or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"duration {text!r} is not a number with one of the units ms, s, m, h, d")
    try:
        return timedelta(seconds=float(number) * _UNITS_S[unit])
    except OverflowError:
        raise ValueError(f"duration {text!r} is too long") from None


def duration_us(duration: timedelta | float | str) -> int:
    """A duration as whole microseconds; numbers are seconds."""
    if isinstance(duration, str):
        duration = parse_duration(duration)
    if isinstance(duration, timedelta):
        return duration // MICROSECOND
    return round(duration * 1_000_000)


def _boot_identity() -> int:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # no boot-time clock here: one identity, and the reaper guards against wall-clock steps
        return 0
    return zlib.crc32(text.strip().encode())
