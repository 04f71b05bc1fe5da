"""Hiding secrets from people: in lists, details, exports and logs. Handlers always see everything.

What is hidden is decided by the name of the key: passwords, secrets, tokens, authorization, cookies, API keys,
card and social security numbers, however the words are joined (`apiKey`, `api_key`, `X-API-Key`). The handler of a kind
may name more keys, or hide its payloads as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

HIDDEN: Final = "[redacted]"
HIDDEN_PAYLOAD: Final = "[payload hidden by its handler]"
HIDDEN_ERROR: Final = "[error hidden by its handler]"

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
# Of a traceback: the bar before lines of an exception group and what stands between its members, where a frame is, and
# the class of an error.
_BAR: Final = re.compile(r"\s*[|+] ")
_MEMBER: Final = re.compile(r"\s*(?:\+-)?\+-+ (?:\d+|\.\.\.) -+$")
_FRAME: Final = re.compile(r'  File "[^"\n]+", line \d+(?:, in .+)?$')
_TRACEBACK: Final = re.compile(
    r"^(?:\s*[|+] )?(?:Exception Group )?Traceback \(most recent call last\):$", re.MULTILINE
)
_HEADING: Final = re.compile(
    r"(?:Exception Group )?Traceback \(most recent call last\):$|During handling of the above exception, another "
    r"exception occurred:$|The above exception was the direct cause of the following exception:$"
)
_CLASS: Final = re.compile(r"([^\W\d][\w.]*)(?::|$)")


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


@dataclass(frozen=True, slots=True)
class KindSecrets:
    """What is hidden of the jobs of a kind besides the usual: values under `keys`, and with `hidden` whole payloads and
    what errors say, since an error may quote the payload."""

    keys: frozenset[str] = frozenset()
    hidden: bool = False


_USUAL: Final = KindSecrets()


class Secrets:
    """What people do not get to see, by kind."""

    def __init__(self, by_kind: Mapping[str, KindSecrets] | None = None) -> None:
        self._by_kind = dict(by_kind or {})
        self._any = KindSecrets(
            frozenset().union(*(one.keys for one in self._by_kind.values())),
            any(one.hidden for one in self._by_kind.values()),
        )

    def of(self, kind: str | None) -> KindSecrets:
        """The rules of a kind; of something whose kind is not known those of all kinds together."""
        return self._any if kind is None else self._by_kind.get(kind, _USUAL)

    def payload(self, kind: str | None, text: str) -> str:
        """The JSON text of a stored payload as people see it. A hidden one is a JSON string that says so."""
        rules = self.of(kind)
        return json.dumps(HIDDEN_PAYLOAD) if rules.hidden else redact_payload(text, rules.keys)

    def value(self, kind: str | None, value: Any) -> Any:
        """A payload that was read already."""
        rules = self.of(kind)
        return HIDDEN_PAYLOAD if rules.hidden else redact(value, rules.keys)

    def text(self, kind: str | None, text: str) -> str:
        """What a handler wrote for people: a log line, a message of progress. A traceback in it is one all the same."""
        rules = self.of(kind)
        if rules.hidden and (begin := _TRACEBACK.search(text)) is not None:
            return redact_text(text[: begin.start()], rules.keys) + _places(text[begin.start() :])
        return redact_text(text, rules.keys)

    def error(self, kind: str | None, text: str) -> str:
        """What an error says."""
        rules = self.of(kind)
        return HIDDEN_ERROR if rules.hidden and text else redact_text(text, rules.keys)

    def traceback(self, kind: str | None, text: str) -> str:
        """A traceback; where errors are hidden, the places it names and the classes of its errors."""
        rules = self.of(kind)
        return _places(text) if rules.hidden else redact_text(text, rules.keys)


def _places(traceback: str) -> str:
    """The lines of a traceback that are of the program's text: frames with their source, and the classes of errors."""
    kept: list[str] = []
    frame_before = in_frames = False
    for line in traceback.splitlines():
        bar = _BAR.match(line)
        body = line if bar is None else line[bar.end() :]
        if (is_frame := _FRAME.match(body) is not None) or _MEMBER.match(line):
            kept.append(line)
            in_frames = True
        elif _HEADING.match(body) or (frame_before and body.startswith("    ")):
            kept.append(line)
        elif in_frames and body[:1].strip():  # what is behind the frames is the error; it may go on for many lines
            named = _CLASS.match(body)
            kept.append(line[: len(line) - len(body)] + (f"{named[1]}: {HIDDEN_ERROR}" if named else HIDDEN_ERROR))
            in_frames = False
        frame_before = is_frame
    return "\n".join(kept) or HIDDEN_ERROR
