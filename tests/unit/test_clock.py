"""Instants, durations, and the clock that tests move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.clock import SystemClock, duration_us, from_us, parse_duration, to_us
from forge_jobs.testing.clock import ManualClock

instants = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))


class TestInstants:
    @given(instants)
    def test_an_instant_survives_to_the_microsecond(self, instant: datetime) -> None:
        assert from_us(to_us(instant)) == instant

    def test_any_zone_is_the_same_instant(self) -> None:
        local = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        assert from_us(to_us(local)) == local
        assert from_us(to_us(local)).tzinfo is UTC

    def test_the_epoch_is_zero(self) -> None:
        assert to_us(datetime(1970, 1, 1, tzinfo=UTC)) == 0
        assert from_us(1) == datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)

    def test_a_naive_time_is_refused(self) -> None:
        with pytest.raises(TypeError):
            to_us(datetime(2026, 1, 1))


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("90", 90), ("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("250ms", 0.25), ("1.5h", 5400), ("0", 0),
         (" 5s ", 5), ("0.5", 0.5)],
    )  # fmt: skip
    def test_text_is_read(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == timedelta(seconds=seconds)

    @pytest.mark.parametrize(
        "text",
        ["", " ", "s", "ms", "5x", "5 s", "5sm", "5hh", "-5s", "+5", "1e3", "1_000", "1.2.3", ".", "nan", "inf", "٥s",
         "5m5s", "5S", "9" * 400 + "d", "99999999999d"],
    )  # fmt: skip
    def test_what_is_no_duration_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="duration"):
            parse_duration(text)

    @pytest.mark.parametrize(
        ("duration", "us"),
        [
            (1, 1_000_000),
            (0.5, 500_000),
            (1e-7, 0),
            (timedelta(minutes=1), 60_000_000),
            ("2h", 7_200_000_000),
            (-1, -1_000_000),
        ],
    )
    def test_every_form_becomes_microseconds(self, duration: timedelta | float | str, us: int) -> None:
        assert duration_us(duration) == us


class TestManualClock:
    def test_it_stands_still(self) -> None:
        clock = ManualClock()
        assert (clock.now_us(), clock.elapsed_us()) == (clock.now_us(), clock.elapsed_us())

    def test_time_passes_on_both_readings(self) -> None:
        clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
        elapsed = clock.elapsed_us()
        clock.advance("90s")
        clock.advance(timedelta(seconds=1))
        clock.advance(0.5)
        assert clock.now() == datetime(2026, 3, 1, 0, 1, 31, 500_000, tzinfo=UTC)
        assert clock.elapsed_us() - elapsed == 91_500_000

    def test_time_does_not_pass_backwards(self) -> None:
        clock = ManualClock()
        before = clock.now()
        with pytest.raises(ValueError, match="step"):
            clock.advance(-1)
        assert clock.now() == before

    def test_the_wall_clock_is_set_without_time_passing(self) -> None:
        clock = ManualClock()
        before, elapsed = clock.now(), clock.elapsed_us()
        clock.step(timedelta(hours=-1))
        assert (clock.now(), clock.elapsed_us()) == (before - timedelta(hours=1), elapsed)
        clock.step(7200)
        assert (clock.now(), clock.elapsed_us()) == (before + timedelta(hours=1), elapsed)

    def test_a_reboot_begins_a_new_elapsed_clock(self) -> None:
        clock = ManualClock()
        clock.advance("1d")
        wall, elapsed, boot = clock.now(), clock.elapsed_us(), clock.boot
        clock.reboot()
        assert clock.now() == wall
        assert clock.elapsed_us() < elapsed
        assert clock.boot != boot


class TestSystemClock:
    def test_it_reads_the_wall_clock_in_utc(self) -> None:
        before = datetime.now(UTC) - timedelta(seconds=1)
        assert before < from_us(SystemClock().now_us()) < before + timedelta(minutes=1)

    def test_its_elapsed_reading_never_goes_back(self) -> None:
        clock = SystemClock()
        readings = [clock.elapsed_us() for _ in range(1_000)]
        assert readings == sorted(readings)

    def test_two_clocks_of_one_host_share_the_boot(self) -> None:
        assert SystemClock().boot == SystemClock().boot
