"""Text that is safe to store and safe to show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.text import clean, printable, size

anything = st.text(st.characters())  # lone surrogates, NUL and all


class TestClean:
    @pytest.mark.parametrize("text", ["", "plain", "Grüße \U0001f600\n\ttabbed", "x" * 100])
    def test_good_text_of_fitting_size_stays(self, text: str) -> None:
        assert clean(text, 100) == text

    @pytest.mark.parametrize(
        ("text", "cleaned"), [("a\0b", "a\ufffdb"), ("\ud800", "\ufffd"), ("\udfff\ud83d", "\ufffd\ufffd")]
    )
    def test_what_cannot_be_stored_is_replaced(self, text: str, cleaned: str) -> None:
        assert clean(text, 100) == cleaned

    def test_long_text_is_cut_in_the_middle_and_says_how_much(self) -> None:
        cut = clean("start " + "x" * 10_000 + " end", 200)
        assert cut.startswith("start xxx")
        assert cut.endswith("xxx end")
        assert "bytes cut" in cut
        assert len(cut.encode()) <= 200

    @pytest.mark.parametrize("letter", ["x", "é", "€", "\U0001f600", "\ud800", "\0"])
    @pytest.mark.parametrize("length", [99, 100, 101, 399, 400, 401, 5_000])
    def test_the_limit_counts_bytes_of_any_alphabet(self, letter: str, length: int) -> None:
        raw = clean(letter * length, 100).encode()
        assert len(raw) <= 100

    @given(anything, st.integers(64, 400))
    def test_the_result_is_always_fit_to_be_stored(self, text: str, limit: int) -> None:
        cleaned = clean(text, limit)
        assert "\0" not in cleaned
        assert len(cleaned.encode()) <= limit
        assert clean(cleaned, limit) == cleaned

    def test_huge_text_is_cut_without_being_copied_around(self) -> None:
        cut = clean("€" * 20_000_000, 4_096)
        assert len(cut.encode()) <= 4_096
        assert cut.startswith("€€")
        assert cut.endswith("€€")


class TestPrintable:
    @pytest.mark.parametrize("text", ["", "plain text", "Grüße, 日本語, \U0001f600", "<b>&amp;</b>"])
    def test_what_shows_stays(self, text: str) -> None:
        assert printable(text) == text

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[2J", "\\x1b[2J"),
            ("\x7f\x80\x9b", "\\x7f\\x80\\x9b"),
            ("\u202eevil\u2066", "\\u202eevil\\u2066"),
            ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
            ("\u2028\u2029", "\\u2028\\u2029"),
            ("\0", "\\x00"),
            ("\ud800", "\\ud800"),
            ("\U000e0001", "\\U000e0001"),
        ],
    )
    def test_what_could_play_tricks_is_escaped(self, text: str, shown: str) -> None:
        assert printable(text) == shown

    def test_line_ends_may_stay(self) -> None:
        assert printable("a\n\tb\r\x1b", newline=True) == "a\n\tb\\r\\x1b"

    @given(anything)
    def test_the_result_is_one_line_that_can_be_written(self, text: str) -> None:
        shown = printable(text)
        assert shown.isprintable()
        shown.encode()


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**2, "5.0 MiB"), (3 * 1024**4, "3.0 TiB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown
