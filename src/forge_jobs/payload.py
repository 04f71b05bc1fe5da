"""Payloads are strict JSON, kept as ASCII text: what goes in comes out, or is refused by name.

`msgspec` does the encoding, but on its own it turns NaN into null, bytes into base64, tuples into
lists and integer keys into strings; so what it makes is checked, and what looks odd is walked.
"""

from __future__ import annotations

import json
import marshal
import math
from typing import Any, TypeAlias

import msgspec

from forge_jobs.limits import INTEGER_DIGITS, JSON_DEPTH, PAYLOAD_MAX_BYTES
from forge_jobs.storage.error import InvalidPayload

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_SAFE = frozenset({str, int, bool, type(None)})
_DIGITS = 10**INTEGER_DIGITS


class BadPayload(ValueError):
    """A stored payload is damaged, or is not what its handler takes. The message gives the path within the payload, and
    never its values."""


def encode_payload(payload: object, max_bytes: int = PAYLOAD_MAX_BYTES) -> str:
    """The stored form of `payload`: ASCII-escaped JSON, key order kept.

    Raises:
        InvalidPayload: a value that JSON cannot carry exactly (NaN, infinity, bytes, tuples, enums, subclasses
            of numbers, keys that are not text, lone surrogates, cycles), depth over 100 or size over
            `max_bytes`; `field` holds the path of the value.
    """
    text = _encode_plain(payload)
    if text is None:
        _check(payload, "payload", 0)
        text = json.dumps(payload, allow_nan=False, separators=(",", ":"))
    if len(text) > max_bytes:
        raise InvalidPayload(
            f"payload is {len(text)} bytes as stored; the limit is {max_bytes}. "
            "Store large data elsewhere and enqueue a reference to it",
            field="payload",
            reason="payload_too_large",
        )
    return text


def decode_payload(text: str) -> Any:
    """The value that was enqueued. Raises `BadPayload` if the stored text is damaged."""
    try:
        return _decode(text)
    except msgspec.DecodeError:
        pass  # damaged, or an integer of more digits than msgspec reads
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadPayload(f"payload: the stored text cannot be read: {error}") from error


def parse_json(text: str | bytes) -> Any:
    """Read JSON from outside, strictly: no NaN or infinity, no duplicate keys, no lone surrogates.

    Raises:
        InvalidPayload: with line and column, or the reason.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidPayload(
            f"not JSON: {error.msg} at line {error.lineno} column {error.colno}", field="body", reason="invalid_json"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidPayload(f"not UTF-8: {error}", field="body", reason="invalid_utf8") from error
    except RecursionError as error:
        raise InvalidPayload(f"nested deeper than {JSON_DEPTH} levels", field="body", reason="too_deep") from error
    except ValueError as error:
        if isinstance(error, InvalidPayload):
            raise
        raise InvalidPayload(
            f"an integer has more than {INTEGER_DIGITS} digits", field="body", reason="number_too_long"
        ) from error


def _encode_plain(payload: Any) -> str | None:
    """The text of a payload that is certainly fine, found out in C; None if it needs a closer look.

    `marshal` takes exact built-in types only, so no subclass gets past it; and what comes back from the text is
    equal to what went in, so no NaN, tuple, set, bytes or integer key does. Ten times faster than walking it.
    """
    try:
        marshal.dumps(payload)
        raw = _encode(payload)
        text = raw.decode("ascii")
        if raw.count(b"[") + raw.count(b"{") <= JSON_DEPTH and _decode(raw) == payload:
            return text
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError):
        pass
    return None


def _check(value: object, path: str, depth: int) -> None:
    kind = type(value)
    if kind is dict or isinstance(value, dict):
        _check_depth(path, depth)
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                raise InvalidPayload(
                    f"{path} has the key {key!r} of type {type(key).__name__}; JSON keys are text",
                    field=path,
                    reason="invalid_type",
                )
            if not key.isascii():
                _check_text(key, f"{path}.{key!r}")
            if type(item) not in _SAFE or (type(item) is str and not item.isascii()) or type(item) is int:
                _check(item, f"{path}.{key}", depth + 1)
    elif kind is list:
        _check_depth(path, depth)
        for index, item in enumerate(value):  # type: ignore[arg-type]
            _check(item, f"{path}[{index}]", depth + 1)
    elif kind is str:
        if not value.isascii():  # type: ignore[attr-defined]
            _check_text(value, path)  # type: ignore[arg-type]
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidPayload(
                f"{path} is {value!r}, which JSON cannot carry", field=path, reason="number_out_of_range"
            )
    elif kind is int:
        if not -_DIGITS < value < _DIGITS:
            raise InvalidPayload(f"{path} has more than {INTEGER_DIGITS} digits", field=path, reason="number_too_long")
    elif kind is not bool and value is not None:
        raise InvalidPayload(
            f"{path} is a {kind.__name__}; a payload holds dict, list, str, int, float, bool and None only. "
            "Convert it before enqueueing",
            field=path,
            reason="invalid_type",
        )


def _check_depth(path: str, depth: int) -> None:
    if depth >= JSON_DEPTH:  # a cycle ends here as well
        shown = path if len(path) < 80 else path[:77] + "…"
        raise InvalidPayload(
            f"{shown} is nested deeper than {JSON_DEPTH} levels, or contains itself", field="payload", reason="too_deep"
        )


def _check_text(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidPayload(
            f"{path} holds a lone surrogate at position {error.start}", field="payload", reason="invalid_unicode"
        ) from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidPayload(f"key {key!r} stands twice in one object", field="body", reason="duplicate_key")
            seen.add(key)
    return found


def _no_constant(word: str) -> Any:
    raise InvalidPayload(f"{word} is not JSON", field="body", reason="invalid_json")
