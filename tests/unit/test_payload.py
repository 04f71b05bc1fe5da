"""What is enqueued is what the handler gets, or it is refused."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs import limits
from forge_jobs.payload import decode_payload, encode_payload, parse_json
from forge_jobs.storage.error import InvalidPayload


class Colour(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    YES = "yes"


class Dictionary(dict[str, Any]):
    """A mapping of one's own."""


class Whole(int):
    """A number of one's own."""


class Real(float):
    """As numpy's float64, which is a float too."""


class Text(str):
    """Text of one's own."""


class Sequence(list[Any]):
    """A list of one's own."""


@dataclasses.dataclass
class Point:
    x: int = 1


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


def _nested(depth: int, leaf: Any = None) -> Any:
    for _ in range(depth):
        leaf = [leaf] if depth % 2 else {"a": leaf}
    return leaf


EXACT: dict[str, Any] = {
    "null": None,
    "true and false": [True, False],
    "an empty list": [],
    "an empty object": {},
    "an empty text": "",
    "an empty key": {"": 1},
    "key order": {"b": 1, "a": 2, "c": {"z": 0, "y": 0}},
    "the limits of 64 bits": [2**63 - 1, -(2**63), 2**64 - 1],
    "beyond 64 bits": [2**63, 2**64, -(2**63) - 1, 123456789012345678901234567890],
    "the most digits": [10**limits.INTEGER_DIGITS - 1, -(10**limits.INTEGER_DIGITS) + 1],
    "beyond a double's precision": 9007199254740993,
    "extremes of doubles": [0.1, 1e-320, 1.7976931348623157e308, 5e-324, 1.5],
    "negative zero": [-0.0],
    "round doubles": [1.0, 1e16, 1e22, 1e100, 123456789.0],
    "types that databases merge": [True, 1, 1.0, "1", None, "null"],
    "NUL": {"a\0b": "\0"},
    "an emoji": "\U0001f600",
    "text that turns round": "\u202eevil\u2066",
    "two spellings of a letter": "e\u0301 \u00e9",
    "code points that are no characters": "\ufffe\uffff\U0010ffff",
    "control characters": "".join(map(chr, [*range(32), 127, 128, 155])),
    "line separators": "\u2028\u2029",
    "markup": "<img src=x onerror=alert(1)>",
    "SQL": "'; DROP TABLE jobs; --",
    "a formula": "=cmd|'/c calc'!A0",
    "a shell line": "$(touch /tmp/x) `id` %s %n {0}",
    "a log line": "line1\nERROR forged\r\n",
    "quotes and backslashes": '\\"\\u0041\\',
    "the deepest": _nested(limits.JSON_DEPTH),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "NaN": (float("nan"), "number_out_of_range"),
    "infinity": (float("inf"), "number_out_of_range"),
    "negative infinity": ([{"a": -math.inf}], "number_out_of_range"),
    "too many digits": (10**limits.INTEGER_DIGITS, "number_too_long"),
    "too many digits below zero": ({"a": -(10**limits.INTEGER_DIGITS)}, "number_too_long"),
    "a number for a key": ({1: 2}, "invalid_type"),
    "null for a key": ({None: 2}, "invalid_type"),
    "a truth value for a key": ({True: 2}, "invalid_type"),
    "a tuple for a key": ({(1, 2): 3}, "invalid_type"),
    "an enum for a key": ({Word.YES: 3}, "invalid_type"),
    "bytes": (b"bytes", "invalid_type"),
    "a bytearray": (bytearray(b"x"), "invalid_type"),
    "a tuple": ([(1, 2)], "invalid_type"),
    "a set": ({"a": {1}}, "invalid_type"),
    "a decimal": (decimal.Decimal("1.1"), "invalid_type"),
    "a date": (datetime.date(2026, 1, 1), "invalid_type"),
    "a datetime": ([datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)], "invalid_type"),
    "a UUID": (uuid.UUID(int=1), "invalid_type"),
    "an object": (object(), "invalid_type"),
    "a dataclass": (Point(), "invalid_type"),
    "a class": (dict, "invalid_type"),
    "an enum": (Colour.RED, "invalid_type"),
    "an enum inside": ({"a": Colour.RED}, "invalid_type"),
    "an enum of text": ([Word.YES], "invalid_type"),
    "a whole number of one's own": (Whole(1), "invalid_type"),
    "a double of one's own": ({"a": Real(1)}, "invalid_type"),
    "text of one's own": (Text("a"), "invalid_type"),
    "a list of one's own": (Sequence(), "invalid_type"),
    "a complex number": (1j, "invalid_type"),
    "a lone surrogate": ("\ud800", "invalid_unicode"),
    "a lone surrogate inside": ({"a": ["\udfff"]}, "invalid_unicode"),
    "a lone surrogate in a key": ({"\udfff": 1}, "invalid_unicode"),
    "surrogates in the wrong order": ("\ude00\ud83d", "invalid_unicode"),
    "a cycle": (_cycle(), "too_deep"),
    "one level too deep": (_nested(limits.JSON_DEPTH + 1), "too_deep"),
    "far too deep": (_nested(5_000), "too_deep"),
}

NO_JSON: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "invalid_json"),
    "blanks": ("   \n", "invalid_json"),
    "a truncated word": ("nul", "invalid_json"),
    "a truncated object": ('{"a":{"b":1}', "invalid_json"),
    "NaN": ('{"a":NaN}', "invalid_json"),
    "Infinity": ("Infinity", "invalid_json"),
    "negative infinity": ("[-Infinity]", "invalid_json"),
    "a leading zero": ("01", "invalid_json"),
    "a plus sign": ("+1", "invalid_json"),
    "no whole part": (".5", "invalid_json"),
    "a trailing comma": ("[1,]", "invalid_json"),
    "single quotes": ("{'a':1}", "invalid_json"),
    "a byte order mark": ("\ufeff{}", "invalid_json"),
    "a byte order mark in bytes": (b"\xef\xbb\xbf{}", "invalid_json"),
    "a raw tab in text": ('"a\tb"', "invalid_json"),
    "two values": ("{} {}", "invalid_json"),
    "no UTF-8": (b'"\xff"', "invalid_utf8"),
    "UTF-16": ("{}".encode("utf-16"), "invalid_utf8"),
    "a key that stands twice": ('{"a":1,"a":2}', "duplicate_key"),
    "a key that stands twice once decoded": ('{"a":{"b":1,"\\u0062":2}}', "duplicate_key"),
    "too many digits": ("9" * 4_301, "number_too_long"),
    "too deep for the parser": ("[" * 200_000 + "]" * 200_000, "too_deep"),
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


class TestEncode:
    @pytest.mark.parametrize("payload", EXACT.values(), ids=EXACT.keys())
    def test_what_comes_out_is_what_went_in(self, payload: Any) -> None:
        text = encode_payload(payload)
        assert text.isascii()
        assert repr(decode_payload(text)) == repr(payload)

    @given(json_values)
    def test_every_json_value_survives_exactly(self, payload: Any) -> None:
        text = encode_payload(payload)
        assert text.isascii()
        assert repr(decode_payload(text)) == repr(payload)
        assert encode_payload(decode_payload(text)) == text

    @given(json_values)
    def test_the_stored_text_is_json_to_others_too(self, payload: Any) -> None:
        assert repr(json.loads(encode_payload(payload))) == repr(payload)

    @pytest.mark.parametrize(("payload", "reason"), REFUSED.values(), ids=REFUSED.keys())
    def test_what_json_cannot_carry_is_refused(self, payload: Any, reason: str) -> None:
        with pytest.raises(InvalidPayload) as caught:
            encode_payload(payload)
        assert caught.value.reason == reason
        assert caught.value.field.startswith("payload")
        assert len(str(caught.value)) < 1_000
        str(caught.value).encode()  # a message with a lone surrogate could not be logged

    def test_a_refusal_names_the_path(self) -> None:
        with pytest.raises(InvalidPayload, match=r"payload\.users\[1\]\.born is a date") as caught:
            encode_payload({"users": [{}, {"born": datetime.date(2000, 1, 1)}]})
        assert caught.value.field == "payload.users[1].born"

    @pytest.mark.parametrize(
        "payload",
        [Dictionary(a=1), {"in": [Dictionary(a=1)]}, collections.OrderedDict(b=1, a=2), collections.Counter("abba")],
        ids=["a subclass", "inside", "an ordered one", "a counter"],
    )
    def test_a_mapping_of_ones_own_is_stored_as_its_contents(self, payload: Any) -> None:
        assert decode_payload(encode_payload(payload)) == payload
        assert encode_payload(payload) == json.dumps(payload, separators=(",", ":"))

    def test_shared_parts_are_no_cycle(self) -> None:
        part = {"a": 1}
        assert decode_payload(encode_payload([part, part])) == [part, part]

    def test_the_limit_counts_the_stored_form(self) -> None:
        encode_payload("x" * (limits.PAYLOAD_MAX_BYTES - 2))
        for too_large in ("x" * (limits.PAYLOAD_MAX_BYTES - 1), "\x01" * 300_000, "\U0001f600" * 100_000):
            with pytest.raises(InvalidPayload) as caught:
                encode_payload(too_large)
            assert caught.value.reason == "payload_too_large"

    def test_the_limit_can_be_set(self) -> None:
        assert encode_payload([1, 2], max_bytes=5) == "[1,2]"
        with pytest.raises(InvalidPayload):
            encode_payload([1, 2], max_bytes=4)

    def test_encoding_leaves_the_payload_alone(self) -> None:
        payload = {"b": [1, {"c": "ü"}], "a": 2**70}
        before = repr(payload)
        encode_payload(payload)
        assert repr(payload) == before


class TestDecode:
    @pytest.mark.parametrize("damaged", ["", "{", '{"a":}', "nul", "[1,]", "{} {}"])
    def test_damaged_text_is_an_error_and_no_surprise(self, damaged: str) -> None:
        with pytest.raises(ValueError, match="cannot be read"):
            decode_payload(damaged)


class TestParse:
    @pytest.mark.parametrize(("text", "reason"), NO_JSON.values(), ids=NO_JSON.keys())
    def test_what_is_not_strict_json_is_refused(self, text: str | bytes, reason: str) -> None:
        with pytest.raises(InvalidPayload) as caught:
            parse_json(text)
        assert caught.value.reason == reason

    @given(json_values)
    def test_json_is_read_exactly(self, value: Any) -> None:
        assert repr(parse_json(json.dumps(value))) == repr(value)
        assert repr(parse_json(json.dumps(value, ensure_ascii=False).encode())) == repr(value)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [("1e400", "number_out_of_range"), ('"\\ud800"', "invalid_unicode"), ('{"\\udfff":1}', "invalid_unicode")],
    )
    def test_what_json_can_write_and_we_cannot_keep_is_refused_when_it_is_encoded(self, text: str, reason: str) -> None:
        """Reading may let these pass or not; a payload made of them is refused in any case."""
        with pytest.raises(InvalidPayload) as caught:
            encode_payload(parse_json(text))
        assert caught.value.reason == reason

    def test_minus_zero_without_a_point_is_a_whole_number(self) -> None:
        assert repr(parse_json("-0")) == "0"
        assert repr(parse_json("-0.0")) == "-0.0"

    def test_a_place_is_named(self) -> None:
        with pytest.raises(InvalidPayload, match="line 2 column 5"):
            parse_json('{\n"a" 1}')
