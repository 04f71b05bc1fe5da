"""Hiding secrets from people: in lists, details, exports and logs. Handlers always see everything.

What is hidden is decided by the name of the key: passwords, secrets, tokens, authorization, cookies, API keys,
card and social security numbers, however the words are joined (`apiKey`, `api_key`, `X-API-Key`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Final

HIDDEN: Final = "[redacted]"

_ANYWHERE: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
    "accesskey",
    "credential",
    "creditcard",
    "cardnumber",
)
_WHOLE_WORDS: Final = frozenset({"pwd", "card", "cards", "ssn", "cvv", "cvc", "pin"})
"""Words that other words contain: `discard`, `className`, `spinner`."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Lengths are bounded, so that a long text takes time in proportion to its length.
_URL_PASSWORD: Final = re.compile(r"(\w://[^:/@\s]{0,128}):[^@/\s]{1,256}@")
_KEY: Final = re.compile(r"""(?<![\w.-])(?P<key>[A-Za-z][\w.-]{0,63})["']?\s{0,8}[=:]\s{0,8}""")
_VALUE: Final = re.compile(
    r"""(?:bearer|basic)\s+[^\s,;'"]+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;&)\]}"']+""", re.IGNORECASE
)


def is_secret(key: str, extra: Collection[str] = ()) -> bool:
    """Whether values under `key` are hidden; `extra` are further keys, compared as they are."""
    if key in extra:
        return True
    joined = "".join(c for c in key.lower() if c.isalnum())
    return any(word in joined for word in _ANYWHERE) or any(word.lower() in _WHOLE_WORDS for word in _WORD.findall(key))


def redact(value: Any, extra: Collection[str] = ()) -> Any:
    """A copy of a JSON value in which everything under a secret key is hidden, however deep."""
    if isinstance(value, dict):
        return {key: HIDDEN if is_secret(str(key), extra) else redact(item, extra) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item, extra) for item in value]
    return value


def redact_payload(text: str, extra: Collection[str] = ()) -> str:
    """The JSON text of a stored payload with its secrets hidden; of damaged text, in which nothing can be found, a JSON
    string that gives only its size. `extra` are the keys that the kind's handler names in `redact`."""
    try:
        return json.dumps(redact(json.loads(text), extra), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        return json.dumps(f"(unreadable payload of {len(text)} characters)")


def redact_text(text: str, extra: Collection[str] = ()) -> str:
    """`text` with the values of `key=value` and `"key": "value"` pairs under secret keys hidden, and the passwords in
    URLs. A best effort, for error messages and log lines."""

    text = _URL_PASSWORD.sub(r"\1:***@", text)
    parts: list[str] = []
    shown = at = 0
    while (found := _KEY.search(text, at)) is not None:
        at = found.end()  # not behind the value: it may hold a key itself, as in `ValueError: token=…`
        value = _VALUE.match(text, at) if is_secret(found["key"], extra) else None
        if value is not None:
            parts += [text[shown:at], HIDDEN]
            shown = at = value.end()
    return "".join([*parts, text[shown:]])
