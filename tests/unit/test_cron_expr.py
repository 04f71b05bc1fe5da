"""Cron expressions name the instants that a brute-force look at every minute finds, in zones whose clocks jump."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forge_jobs import InvalidInput
from forge_jobs.cron_expr import CronExpr, Fold, Gap, Odd, parse

BERLIN: Final = "Europe/Berlin"
CHANGES: Final = {
    BERLIN: (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)),
    "America/New_York": (datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)),
    "Australia/Lord_Howe": (datetime(2026, 10, 3, 15, 30, tzinfo=UTC), datetime(2026, 4, 4, 15, tzinfo=UTC)),
    "UTC": (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)),
}
"""A day on which the clocks go forward, and one on which they go back."""
DAY: Final = timedelta(days=1)
MINUTE: Final = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instants(expr: CronExpr, after: datetime, n: int) -> list[str]:
    return [fire.at.strftime("%m-%d %H:%M:%S") for fire in expr.preview(after, n)]


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("text", "said", "reason"),
        [
            ("61 * * * *", "minute '61': 61 is not within 0 … 59", "out_of_range"),
            ("0 24 * * *", "hour '24': 24 is not within 0 … 23", "out_of_range"),
            ("0 0 0 * *", "day of month '0': 0 is not within 1 … 31", "out_of_range"),
            ("0 0 * 13 *", "month '13': 13 is not within 1 … 12", "out_of_range"),
            ("0 0 * * 8", "day of week '8': 8 is not within 0 … 7", "out_of_range"),
            ("60 0 0 * * *", "second '60': 60 is not within 0 … 59", "out_of_range"),
            ("1,99 * * * *", "minute '1,99': 99 is not within", "out_of_range"),
            ("30-10 * * * *", "minute '30-10': the range 30-10 runs backwards", "out_of_range"),
            ("0 0 * * FRI-SUN", "the range FRI-SUN runs backwards; SUN is 0, or 7 at an end", "out_of_range"),
            ("*/0 * * * *", "minute '*/0': a step of 0", "step_zero"),
            ("0 */00 * * *", "hour '*/00': a step of 0", "step_zero"),
            ("0 0 30 2 *", "never fires", "never_fires"),
            ("0 0 31 4,6 *", "never fires", "never_fires"),
            ("* * * *", "it has 4 fields", "wrong_fields"),
            ("", "it has 0 fields", "wrong_fields"),
            ("0 0 1 1 * 2030 *", "the seventh field '*' (year) does not exist; bound it by `ends_at`", "year_field"),
            ("@reboot", "macro '@reboot' is none of @hourly", "unknown_macro"),
            ("a * * * *", "minute 'A'", "invalid_syntax"),
            ("1,,2 * * * *", "minute '1,,2'", "invalid_syntax"),
            ("*/5/2 * * * *", "minute '*/5/2'", "invalid_syntax"),
            ("-1 * * * *", "minute '-1'", "invalid_syntax"),
            ("1.5 * * * *", "minute '1.5'", "invalid_syntax"),
            ("٣ * * * *", "minute '٣'", "invalid_syntax"),
            ("0 0 * MON *", "month 'MON'", "invalid_syntax"),
            ("0 " * 200, "the limit is 255", "out_of_range"),
        ],
    )
    def test_a_bad_expression_is_refused_with_field_value_and_rule(self, text: str, said: str, reason: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            parse(text)
        assert said in str(caught.value)
        assert (caught.value.field, caught.value.reason) == ("expr", reason)

    @pytest.mark.parametrize("value", [None, 5, b"* * * * *", ["*"] * 5])
    def test_what_is_not_text_is_refused(self, value: object) -> None:
        with pytest.raises(InvalidInput, match="not text"):
            parse(value)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "zone",
        ["Europe/Berln", "", "../etc/passwd", "localtime", "posixrules", "right/UTC", "Europe", "A" * 500, "a\0b"],
    )
    def test_an_unknown_zone_is_refused(self, zone: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            parse("* * * * *", zone)
        assert (caught.value.field, caught.value.reason) == ("zone", "unknown_zone")

    def test_a_near_zone_is_named(self) -> None:
        with pytest.raises(InvalidInput, match="did you mean 'Europe/Berlin'"):
            parse("* * * * *", "europe/berlin")

    def test_other_words_for_gap_and_fold_are_refused(self) -> None:
        with pytest.raises(InvalidInput, match="gap 'jump' must be one of shift, skip"):
            parse("* * * * *", gap="jump")
        with pytest.raises(InvalidInput, match="fold 'all' must be one of first, second, both"):
            parse("* * * * *", fold="all")

    @given(st.text(alphabet="0123456789*/-,?LW# @ABCJMONSU\n\0", max_size=30))
    @settings(max_examples=300, deadline=None)
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            assert parse(text).next_after(at("2026-01-01")) is not None
        except InvalidInput as error:
            assert error.reason and "expr" in str(error)


class TestWhatAnExpressionMeans:
    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("@hourly", "0 * * * *"),
            ("@daily", "0 0 * * *"),
            ("@weekly", "0 0 * * 0"),
            ("@monthly", "0 0 1 * *"),
            ("@YEARLY", "0 0 1 1 *"),
            ("? ? ? ? ?", "* * * * *"),
            ("0 0 * jan-Mar mon,FRI", "0 0 * 1-3 1,5"),
            ("0 0 * * 7", "0 0 * * 0"),
            ("0 0 * * 5-7", "0 0 * * 0,5,6"),
            ("  5   4 * *   * ", "5 4 * * *"),
            ("0 5 4 * * *", "5 4 * * *"),
            ("10-20/5 * * * *", "10,15,20 * * * *"),
            ("50/4 * * * *", "50,54,58 * * * *"),
        ],
    )
    def test_there_is_more_than_one_way_to_say_it(self, text: str, same: str) -> None:
        after = at("2026-02-27T11:11:11")
        assert instants(parse(text), after, 20) == instants(parse(same), after, 20)

    def test_either_day_field_matches_when_both_are_restricted(self) -> None:
        expr = parse("0 0 13 * FRI")
        assert instants(expr, at("2026-03-01"), 6) == [
            "03-06 00:00:00", "03-13 00:00:00", "03-20 00:00:00", "03-27 00:00:00", "04-03 00:00:00", "04-10 00:00:00",
        ]  # fmt: skip
        assert "04-13 00:00:00" in instants(expr, at("2026-04-10"), 2)

    def test_a_range_of_one_number_is_that_number(self) -> None:
        """The library goes on to the end."""
        assert instants(parse("5-5/2 * * * *"), at("2026-03-01"), 2) == ["03-01 00:05:00", "03-01 01:05:00"]
        assert instants(parse("0 0 * * mon-mon/2"), at("2026-03-01"), 2) == ["03-02 00:00:00", "03-09 00:00:00"]

    def test_one_restricted_day_field_decides_alone(self) -> None:
        assert instants(parse("0 0 13 * *"), at("2026-03-01"), 2) == ["03-13 00:00:00", "04-13 00:00:00"]
        assert instants(parse("0 0 ? * FRI"), at("2026-03-01"), 2) == ["03-06 00:00:00", "03-13 00:00:00"]

    def test_six_fields_begin_with_seconds(self) -> None:
        assert instants(parse("*/20 30 2 * * *"), at("2026-03-01"), 4) == [
            "03-01 02:30:00", "03-01 02:30:20", "03-01 02:30:40", "03-02 02:30:00",
        ]  # fmt: skip

    def test_the_next_fire_is_strictly_later(self) -> None:
        expr = parse("0 12 * * *")
        assert expr.next_after(at("2026-03-01T12:00:00")) == at("2026-03-02T12:00:00")
        assert expr.next_after(at("2026-03-01T12:00:00.000001")) == at("2026-03-02T12:00:00")
        assert expr.next_after(at("2026-03-01T11:59:59.999999")) == at("2026-03-01T12:00:00")

    def test_a_leap_day_is_found_across_the_century(self) -> None:
        assert parse("0 0 29 2 *", BERLIN).next_after(at("2096-03-01")) == at("2104-02-28T23:00:00")

    @pytest.mark.parametrize(
        ("text", "wall_clock"),
        [
            ("30 2 * * *", True),
            ("0,30 1-4 * * *", True),
            ("*/10 30 2 * * *", True),
            ("0 9-17 * * *", True),
            ("@daily", True),
            ("@hourly", False),
            ("*/30 2 * * *", False),
            ("30 */2 * * *", False),
            ("0-59 2 * * *", False),
            ("0 0-23 * * *", False),
            ("0 0-11,12-23 * * *", False),
            ("0 1-23/2 * * *", False),
        ],
    )
    def test_fixed_hours_and_minutes_mean_the_wall_clock(self, text: str, wall_clock: bool) -> None:
        assert parse(text).wall_clock is wall_clock

    def test_a_preview_is_bounded(self) -> None:
        assert len(parse("* * * * * *").preview(at("2026-01-01"), 100)) == 100
        for n in (0, 101, True):
            with pytest.raises(InvalidInput, match="not within 1 … 100"):
                parse("* * * * *").preview(at("2026-01-01"), n)


class TestDaysOnWhichTheClocksChange:
    def test_half_past_two_in_berlin_fires_once_on_each(self) -> None:
        expr = parse("30 2 * * *", BERLIN)
        spring, autumn = (expr.preview(day, 3) for day in (at("2026-03-28T12:00"), at("2026-10-24T12:00")))
        assert [fire.at for fire in spring[:2]] == [at("2026-03-29T01:00"), at("2026-03-30T00:30")]
        assert [(fire.local.strftime("%H:%M"), fire.odd) for fire in spring[:2]] == [
            ("03:00", Odd.GAP),
            ("02:30", None),
        ]
        assert [fire.at for fire in autumn[:2]] == [at("2026-10-25T00:30"), at("2026-10-26T01:30")]
        assert [fire.odd for fire in autumn[:2]] == [Odd.FOLD, None]

    def test_a_gap_can_be_skipped(self) -> None:
        expr = parse("30 2 * * *", BERLIN, gap="skip")
        assert instants(expr, at("2026-03-28T12:00"), 1) == ["03-30 00:30:00"]

    def test_readings_that_are_shifted_to_one_instant_fire_once(self) -> None:
        expr = parse("0,15,30,45 2,3 * * *", BERLIN)
        assert instants(expr, at("2026-03-29T00:00"), 4) == [
            "03-29 01:00:00", "03-29 01:15:00", "03-29 01:30:00", "03-29 01:45:00",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("fold", "found"),
        [
            ("first", ["10-25 00:30:00", "10-26 01:30:00"]),
            ("second", ["10-25 01:30:00", "10-26 01:30:00"]),
            ("both", ["10-25 00:30:00", "10-25 01:30:00"]),
        ],
    )
    def test_a_reading_that_comes_twice_fires_as_it_is_told(self, fold: str, found: list[str]) -> None:
        assert instants(parse("30 2 * * *", BERLIN, fold=fold), at("2026-10-24T12:00"), 2) == found

    @pytest.mark.parametrize("fold", list(Fold))
    def test_elapsed_time_goes_on_through_both(self, fold: Fold) -> None:
        expr = parse("*/30 * * * *", BERLIN, fold=fold)
        for change in CHANGES[BERLIN]:
            found = [fire.at for fire in expr.preview(change - timedelta(hours=3), 12)]
            assert {later - earlier for earlier, later in pairwise(found)} == {30 * MINUTE}

    def test_a_shift_by_half_an_hour_is_one(self) -> None:
        forward, back = CHANGES["Australia/Lord_Howe"]
        expr = parse("15 2 * * *", "Australia/Lord_Howe")
        assert expr.preview(forward - 12 * 60 * MINUTE, 1)[0].at == forward
        expr = parse("45 1 * * *", "Australia/Lord_Howe", fold="both")
        assert [fire.at for fire in expr.preview(back - 12 * 60 * MINUTE, 2)] == [
            back - 15 * MINUTE,
            back + 15 * MINUTE,
        ]

    @pytest.mark.parametrize(
        "zone", ["Africa/Casablanca", "Pacific/Apia", "America/Caracas", "Asia/Kathmandu", "Africa/Monrovia"]
    )
    def test_a_daily_schedule_fires_daily_in_zones_of_strange_history(self, zone: str) -> None:
        for year in (1972, 2007, 2011, 2016, 2026):
            found = [fire.at for fire in parse("30 2 * * *", zone).preview(datetime(year, 1, 1, tzinfo=UTC), 100)]
            steps = {later - earlier for earlier, later in pairwise(found)}
            assert all(timedelta(hours=22) <= step <= timedelta(hours=26) for step in steps), steps


# The oracle: look at every minute of some days.


@lru_cache(maxsize=64)
def readings(zone: str, day: datetime) -> list[tuple[datetime, datetime]]:
    """Every minute from a day before to two days after, with what the clock shows."""
    where, begin = ZoneInfo(zone), day - DAY
    return [
        (instant, instant.astimezone(where).replace(tzinfo=None))
        for instant in (begin + n * MINUTE for n in range(3 * 24 * 60))
    ]


def brute_force(fields: Fields, zone: str, day: datetime, gap: Gap, fold: Fold) -> list[datetime]:
    minutes = readings(zone, day)
    shown: dict[datetime, list[datetime]] = {}
    for instant, reading in minutes:
        shown.setdefault(reading, []).append(instant)
    if not fields.wall_clock:
        return [instant for instant, reading in minutes if fields.matches(reading)]
    found = set()
    first, last = minutes[0][1], minutes[-1][1]
    for n in range(int((last - first) / MINUTE) + 1):
        reading = first + n * MINUTE
        if not fields.matches(reading):
            continue
        passes = shown.get(reading, [])
        if not passes:
            if gap is Gap.SHIFT:
                found.add(min(instant for instant, other in minutes if other > reading and instant >= day - DAY))
        elif len(passes) == 1 or fold is Fold.BOTH:
            found.update(passes)
        else:
            found.add(min(passes) if fold is Fold.FIRST else max(passes))
    return sorted(found)


class Fields:
    """An expression as the sets that it means, made apart from the code under test."""

    def __init__(self, minutes: str, hours: str, days: str, weekdays: str) -> None:
        self.text = f"{minutes} {hours} {days} * {weekdays}"
        self.minutes, self.hours = expand(minutes, 0, 59), expand(hours, 0, 23)
        self.days, self.weekdays = expand(days, 1, 31), {n % 7 for n in expand(weekdays, 0, 7)}
        self.either = days != "*" and weekdays != "*"
        self.wall_clock = all(
            not set(text) & set("*/") and len(values) < size
            for text, values, size in ((minutes, self.minutes, 60), (hours, self.hours, 24))
        )

    def matches(self, reading: datetime) -> bool:
        day, weekday = reading.day in self.days, reading.isoweekday() % 7 in self.weekdays
        rightly = day or weekday if self.either else day and weekday
        return reading.minute in self.minutes and reading.hour in self.hours and rightly

    def __repr__(self) -> str:
        return self.text


def expand(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        first, dash, last = span.partition("-")
        begin = low if span == "*" else int(first)
        end = high if span == "*" or (step and not dash) else int(last or first)
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda ends: "{}-{}".format(*sorted(ends)))
    stepped = st.tuples(st.sampled_from(["*"]) | span, st.integers(1, 30)).map(lambda both: f"{both[0]}/{both[1]}")
    lists = st.lists(number | span, min_size=1, max_size=4).map(",".join)
    return st.just("*") | stepped | lists


FIELDS = st.builds(
    Fields,
    numbers(0, 59),
    st.just("*") | numbers(0, 23) | st.lists(st.integers(0, 4).map(str), min_size=1, max_size=3).map(",".join),
    st.just("*") | st.lists(st.integers(1, 31).map(str), min_size=1, max_size=5).map(",".join),
    st.just("*") | st.lists(st.integers(0, 7).map(str), min_size=1, max_size=3).map(",".join),
)


@given(FIELDS, st.sampled_from(sorted(CHANGES)), st.booleans(), st.sampled_from(Gap), st.sampled_from(Fold))
@example(Fields("30", "2", "*", "*"), BERLIN, True, Gap.SHIFT, Fold.FIRST)
@example(Fields("0,30", "2,3", "*", "*"), BERLIN, True, Gap.SHIFT, Fold.SECOND)
@example(Fields("15", "2", "*", "*"), "Australia/Lord_Howe", True, Gap.SHIFT, Fold.FIRST)
@example(Fields("45", "1", "*", "*"), "Australia/Lord_Howe", False, Gap.SKIP, Fold.SECOND)
@settings(max_examples=150, deadline=None)
def test_an_expression_names_what_a_look_at_every_minute_finds(
    fields: Fields, zone: str, forward: bool, gap: Gap, fold: Fold
) -> None:
    day = CHANGES[zone][0 if forward else 1]
    expected = [
        instant for instant in brute_force(fields, zone, day, gap, fold) if abs(instant - day) < timedelta(hours=20)
    ]
    expr = parse(fields.text, zone, gap, fold)
    assert expr.wall_clock is fields.wall_clock
    begin, end = day - timedelta(hours=20), day + timedelta(hours=20)
    found = []
    for fire in expr.fires(begin):
        if fire.at >= end:
            break
        found.append(fire.at)
    assert found == expected
    assert [fire.at for fire in expr.newest(begin, end - MINUTE, 10_000)] == expected, "backwards it is the same"


@given(FIELDS, st.sampled_from(sorted(CHANGES)), st.booleans(), st.integers(0, 2 * 24 * 60), st.sampled_from(Fold))
@settings(max_examples=60, deadline=None)
def test_step_by_step_is_the_same_as_all_at_once(
    fields: Fields, zone: str, forward: bool, start: int, fold: Fold
) -> None:
    expr = parse(fields.text, zone, fold=fold)
    begin = CHANGES[zone][0 if forward else 1] - DAY + start * MINUTE
    at_once = [fire.at for fire in expr.preview(begin, 8)]
    stepped, instant = [], begin
    for _ in range(8):
        following = expr.next_after(instant)
        assert following is not None
        stepped.append(following)
        instant = following
    assert stepped == at_once


@pytest.mark.parametrize("process_zone", ["Asia/Tokyo", "America/New_York"])
def test_the_zone_of_the_process_does_not_matter(process_zone: str) -> None:
    program = """
import json
from datetime import UTC, datetime
from forge_jobs.cron_expr import parse
expr = parse("30 2 * * *", "Europe/Berlin")
print(json.dumps([fire.at.isoformat() for fire in expr.preview(datetime(2026, 3, 27, tzinfo=UTC), 4)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TZ": process_zone},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    expected = parse("30 2 * * *", BERLIN).preview(at("2026-03-27"), 4)
    assert json.loads(done.stdout) == [fire.at.isoformat() for fire in expected]


def test_the_newest_of_very_many_is_found_at_once() -> None:
    expr = parse("* * * 1 *", BERLIN)
    began = datetime.now(UTC)
    found = expr.newest(at("1990-01-01"), at("2025-12-31"), 3)
    assert [fire.at for fire in found] == [at("2025-01-31T22:57"), at("2025-01-31T22:58"), at("2025-01-31T22:59")]
    assert datetime.now(UTC) - began < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("expr", "words"),
    [
        ("30 2 * * *", "At 02:30 every day"),
        ("*/10 * * * * *", "Every 10th second of every minute"),
        ("@monthly", "At 00:00 on the first day of every month"),
    ],
)
def test_an_expression_says_in_words_what_it_means(expr: str, words: str) -> None:
    assert parse(expr).in_words == words
