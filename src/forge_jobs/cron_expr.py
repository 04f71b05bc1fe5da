"""Cron expressions: which instants one names in a time zone, whatever that zone's clocks do.

The library cronsim reads the expression and walks through readings of a clock that is never set. Here are the checks,
and how readings become instants. Time is cut where the zone's offset changes. Between two cuts reading and instant
differ by one offset; at a cut readings are left out (a gap) or come twice (a fold).

A schedule with fixed hours and minutes means the wall clock: in a gap it is moved or left out, in a fold it fires as it
is told. Any other follows elapsed time: each instant whose reading matches fires, in both passes of a fold.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice, takewhile
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from forge_jobs import limits
from forge_jobs.storage.error import InvalidInput

MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
FIELDS: Final = ("second", "minute", "hour", "day of month", "month", "day of week")
BOUNDS: Final = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_RANGE_OF_ONE: Final = re.compile(r"(?<![\w#-])(\w+)-\1/\d+")
NAMES: Final = {4: "JAN … DEC", 5: "SUN … SAT"}
LOOK_YEARS: Final = 60
"""No expression that fires at all is silent for so long."""
LAST_YEAR: Final = 9990
SECOND: Final = timedelta(seconds=1)
DAY: Final = timedelta(days=1)


class Gap(StrEnum):
    """What becomes of a reading that the clock leaves out."""

    SHIFT = "shift"
    SKIP = "skip"


class Fold(StrEnum):
    """Which of the two passes of a reading fires."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


class Odd(StrEnum):
    """Why a fire is worth a look: its reading was left out by the clock, or comes twice."""

    GAP = "gap"
    FOLD = "fold"


_Word = TypeVar("_Word", Gap, Fold)


@dataclass(frozen=True, slots=True)
class Fire:
    """One instant of a schedule, in UTC and as the zone's clocks show it."""

    at: datetime
    local: datetime
    odd: Odd | None = None


@dataclass(frozen=True, slots=True)
class CronExpr:
    """A checked expression in its zone; made by `parse`."""

    text: str
    zone: ZoneInfo
    gap: Gap = Gap.SHIFT
    fold: Fold = Fold.FIRST
    wall_clock: bool = field(default=False, compare=False)
    """Whether it means the wall clock, else it follows elapsed time."""
    _six: str = field(default="", repr=False, compare=False)

    @property
    def in_words(self) -> str:
        """What it says, in English: `At 02:30 every day`."""
        return CronSim(self._six, datetime(2000, 1, 1)).explain()  # noqa: DTZ001  # a reading, not an instant

    def next_after(self, after: datetime) -> datetime | None:
        """The first instant after `after`, in UTC; None if there is none."""
        return next((fire.at for fire in self.fires(after)), None)

    def preview(self, after: datetime, n: int = 10) -> list[Fire]:
        """The next `n` fires, at most 100, odd ones marked."""
        if type(n) is not int or not 1 <= n <= limits.PREVIEW_FIRES:
            raise InvalidInput(f"n {n!r} is not within 1 … {limits.PREVIEW_FIRES}", field="n", reason="out_of_range")
        return list(islice(self.fires(after), n))

    def newest(self, after: datetime, until: datetime, n: int) -> list[Fire]:
        """The newest `n` fires with `after < at <= until`, oldest first, however many there are."""
        found = list(islice(takewhile(lambda fire: fire.at > after, self._fires_back(until)), n))
        return found[::-1]

    def fires(self, after: datetime) -> Iterator[Fire]:
        """Every fire after `after`, in order."""
        low = _utc_reading(after)
        for span in _spans_from(self.zone, low):
            yield from self._fires_of(span, low, span.end.at)

    def _fires_back(self, until: datetime) -> Iterator[Fire]:
        """Every fire up to `until`, newest first."""
        high = _utc_reading(until) + SECOND
        for span in _spans_to(self.zone, high):
            yield from self._fires_of(span, span.begin.at - SECOND, high, back=True)

    def _fires_of(self, span: _Span, low: datetime, high: datetime, *, back: bool = False) -> Iterator[Fire]:
        """The fires of a span that are after `low` and before `high`."""
        begin, offset = span.begin.at, span.offset
        shifted = low < begin < high and self._is_shifted_to(span.begin)
        low, high = max(low, begin - SECOND), min(high, span.end.at)
        if shifted and not back:
            yield self._fire(begin, Odd.GAP)
        if low < high:
            for reading in self._readings(low + offset, high + offset, back=back):
                passes = span.passes(reading)
                if not (shifted and reading - offset == begin) and self._takes(passes):
                    yield self._fire(reading - offset, Odd.FOLD if passes else None)
        if shifted and back:
            yield self._fire(begin, Odd.GAP)

    def _is_shifted_to(self, change: _Change) -> bool:
        if not self.wall_clock or self.gap is not Gap.SHIFT or not change.leaves_out:
            return False
        return any(True for _ in self._readings(change.at + change.before - SECOND, change.at + change.after))

    def _takes(self, passes: set[Fold]) -> bool:
        """Whether a reading fires that comes twice, where this is its first or second time (or neither)."""
        return not passes or not self.wall_clock or self.fold is Fold.BOTH or self.fold in passes

    def _readings(self, low: datetime, high: datetime, *, back: bool = False) -> Iterator[datetime]:
        """The readings after `low` and before `high` that match."""
        try:
            for reading in CronSim(self._six, high if back else low, reverse=back):
                if not low < reading < high:
                    return
                yield reading
        except (OverflowError, ValueError):  # the calendar ends
            return

    def _fire(self, at: datetime, odd: Odd | None) -> Fire:
        instant = at.replace(tzinfo=UTC)
        return Fire(instant, instant.astimezone(self.zone), odd)


def parse(expr: str, zone: str = "UTC", gap: str = Gap.SHIFT, fold: str = Fold.FIRST) -> CronExpr:
    """The checked expression.

    Raises:
        InvalidInput: naming field, value and rule: bad syntax, out of range, a step of 0, never fires, unknown zone.
    """
    gap_word, fold_word = _choice(Gap, gap, "gap"), _choice(Fold, fold, "fold")
    where = parse_zone(zone)
    parts = _split(expr)
    for place, text in enumerate(parts):
        _check_field(expr, place, text)
    # The library reads `5-5/10` as `5/10`, which goes on to the end; a range of one number is that number.
    six = _RANGE_OF_ONE.sub(r"\1", " ".join(parts))
    try:
        sim = CronSim(six, datetime(2000, 1, 1))  # noqa: DTZ001  # a reading, not an instant
        next(sim)
    except (CronSimError, StopIteration):
        raise _refused(expr, "never fires: no month has such a day", "never_fires") from None
    fixed = _is_fixed(parts[1], sim.minutes, 60) and _is_fixed(parts[2], sim.hours, 24)
    return CronExpr(expr.strip(), where, gap_word, fold_word, fixed, six)


def parse_zone(name: str) -> ZoneInfo:
    """The zone of an IANA name such as `Europe/Berlin`.

    Raises:
        InvalidInput: there is none of this name.
    """
    if not isinstance(name, str):
        raise InvalidInput(f"zone {name!r} is a {type(name).__name__}, not text", field="zone", reason="invalid_type")
    # Such names mean what this host is set to, or clocks with leap seconds.
    if not name.startswith(("localtime", "posix", "right/", "Factory")):
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            pass
    shown = name if len(name) <= 80 else f"{name[:80]}…"
    near = difflib.get_close_matches(name[:80], zoneinfo.available_timezones() - {"localtime"}, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]!r}?" if near else "give an IANA name such as 'Europe/Berlin' or 'UTC'"
    raise InvalidInput(f"zone {shown!r} is not known; {hint}", field="zone", reason="unknown_zone")


# Reading the text


def _split(expr: object) -> list[str]:
    """The six fields, seconds first."""
    if not isinstance(expr, str):
        raise InvalidInput(f"expr {expr!r} is a {type(expr).__name__}, not text", field="expr", reason="invalid_type")
    if len(expr) > limits.CRON_EXPR_LENGTH:
        raise InvalidInput(
            f"expr has {len(expr)} characters; the limit is {limits.CRON_EXPR_LENGTH}",
            field="expr",
            reason="out_of_range",
        )
    text = expr.strip().lower()
    if text.startswith("@"):
        if text not in MACROS:
            raise _refused(expr, f"macro {text!r} is none of {', '.join(MACROS)}", "unknown_macro")
        text = MACROS[text]
    parts = text.upper().replace("?", "*").split()
    match len(parts):
        case 5:
            return ["0", *parts]
        case 6:
            return parts
        case 7:
            raise _refused(
                expr, f"the seventh field {parts[6]!r} (year) does not exist; bound it by `ends_at`", "year_field"
            )
    raise _refused(
        expr,
        f"it has {len(parts)} fields; give 5 (minute, hour, day of month, month, day of week), or 6 with seconds first",
        "wrong_fields",
    )


def _check_field(expr: str, place: int, text: str) -> None:
    probe = ["0", *["*"] * 5]
    for term in text.split(","):
        probe[place] = term or "nothing"
        try:
            CronSim(" ".join(probe), datetime(2000, 1, 1))  # noqa: DTZ001
        except (CronSimError, ValueError, AssertionError):
            problem, reason = _problem(place, term)
            raise _refused(expr, f"{FIELDS[place]} {text!r}: {problem}", reason) from None


def _problem(place: int, term: str) -> tuple[str, str]:
    """What is wrong with a term that was refused, and the stable word for it."""
    low, high = BOUNDS[place]
    span, slash, step = term.partition("/")
    if slash and step.isascii() and step.isdigit() and int(step) == 0:
        return "a step of 0 goes nowhere", "step_zero"
    first, dash, last = span.partition("-")
    numbers = [int(one) for one in (first, last) if one.isascii() and one.isdigit()]
    for number in numbers:
        if not low <= number <= high:
            return f"{number} is not within {low} … {high}", "out_of_range"
    if dash and first and last and (len(numbers) == 2 or place in NAMES):
        return f"the range {span} runs backwards" + ("; SUN is 0, or 7 at an end" if place == 5 else ""), "out_of_range"
    names = f" or {NAMES[place]}" if place in NAMES else ""
    return f"{term!r} is none of *, a number {low} … {high}{names}, a range or a step", "invalid_syntax"


def _refused(expr: object, problem: str, reason: str) -> InvalidInput:
    return InvalidInput(f"expr {expr!r}: {problem}", field="expr", reason=reason)


def _choice(kind: type[_Word], value: object, name: str) -> _Word:
    try:
        return kind(str(value))
    except ValueError:
        raise InvalidInput(
            f"{name} {value!r} must be one of {', '.join(kind)}", field=name, reason="invalid_value"
        ) from None


def _is_fixed(text: str, values: set[int], all_of_them: int) -> bool:
    return "*" not in text and "/" not in text and len(values) < all_of_them


# The zone's clocks. Instants are naive UTC here, readings naive local time.


@dataclass(frozen=True, slots=True)
class _Change:
    """The offset of a zone changes, or a year begins and it stays."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def leaves_out(self) -> bool:
        return self.after > self.before


@dataclass(frozen=True, slots=True)
class _Span:
    """The time between two changes, the first instant included."""

    begin: _Change
    end: _Change

    @property
    def offset(self) -> timedelta:
        return self.begin.after

    def passes(self, reading: datetime) -> set[Fold]:
        """Empty for a reading that comes once; else whether it comes here for the first or the second time."""
        found = set()
        if reading >= self.end.at + self.end.after:
            found.add(Fold.FIRST)
        if reading < self.begin.at + self.begin.before:
            found.add(Fold.SECOND)
        return found


def _spans_from(zone: ZoneInfo, instant: datetime) -> Iterator[_Span]:
    """The span that `instant` is in, and those after it."""
    begin: _Change | None = None
    for year in range(instant.year - 1, min(instant.year + LOOK_YEARS, LAST_YEAR)):
        for end in _changes(zone, year):
            if begin is not None and end.at > instant:
                yield _Span(begin, end)
            begin = end


def _spans_to(zone: ZoneInfo, instant: datetime) -> Iterator[_Span]:
    """The span that `instant` is in, and those before it, latest first."""
    end: _Change | None = None
    for year in range(min(instant.year + 1, LAST_YEAR), max(instant.year - LOOK_YEARS, 1), -1):
        for begin in reversed(_changes(zone, year)):
            if end is not None and begin.at <= instant:
                yield _Span(begin, end)
            end = begin


@lru_cache(maxsize=4096)
def _changes(zone: ZoneInfo, year: int) -> tuple[_Change, ...]:
    """The changes within a year, and its end as one that changes nothing."""
    found: list[_Change] = []
    at, end = datetime(year, 1, 1), datetime(year + 1, 1, 1)  # noqa: DTZ001
    offset = _offset(zone, at)
    while at < end:
        later = min(at + DAY, end)
        if _offset(zone, later) != offset:
            change = _first_change(zone, at, later)
            found.append(_Change(change, offset, _offset(zone, change)))
            later = change
        offset, at = _offset(zone, later), later
    if not found or found[-1].at != end:
        found.append(_Change(end, offset, offset))
    return tuple(found)


def _first_change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The first whole second after `low` at which the offset is another than at `low`; it is by `high`."""
    before = _offset(zone, low)
    while high - low > SECOND:
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
    return high


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    found = instant.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert found is not None
    return found


def _utc_reading(instant: datetime) -> datetime:
    """The whole second that `instant` is in, as naive UTC."""
    if instant.tzinfo is None:
        raise InvalidInput(
            f"{instant.isoformat()} has no time zone; give an aware datetime", field="after", reason="naive_time"
        )
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None)
