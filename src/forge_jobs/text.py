"""Text that is safe to store and safe to show."""

from __future__ import annotations

import re
import unicodedata
from datetime import timedelta

_SURROGATES = re.compile("[\ud800-\udfff\x00]")


def clean(text: str, limit_bytes: int) -> str:
    """`text` as valid UTF-8 without NUL, at most about `limit_bytes` long, cut in the middle with a mark.

    Storing an error must never fail because of its text, so anything odd becomes U+FFFD.
    """
    if len(text) > 4 * limit_bytes:  # an error of 50 MB is cut before it is copied around
        cut = len(text) - 2 * limit_bytes
        text = f"{text[:limit_bytes]}… {cut} characters cut …{text[-limit_bytes:]}"
    text = _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)
    raw = text.encode()
    if len(raw) <= limit_bytes:
        return text
    head = (limit_bytes - 40) * 2 // 3
    tail = limit_bytes - 40 - head
    cut = len(raw) - head - tail
    first = raw[:head].decode(errors="ignore")
    last = raw[-tail:].decode(errors="ignore")
    return f"{first}… {cut} bytes cut …{last}"


def printable(text: str, *, newline: bool = False) -> str:
    """`text` with control, bidirectional and other invisible characters shown as escapes.

    What is printed on a terminal or into a log line cannot move the cursor, forge a line or turn text round.
    With `newline=True` line ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    keep = "\n\t" if newline else ""
    return "".join(c if c in keep or _shows(c) else _escape(c) for c in text)


def _shows(char: str) -> bool:
    return char == " " or unicodedata.category(char)[0] not in "CZ"


def _escape(char: str) -> str:
    code = ord(char)
    if char in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def span(duration: timedelta) -> str:
    """A duration in its two largest units: `3d 4h`, `12m 5s`, `0.4s`."""
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f}s"
    left, parts = int(seconds), list[str]()
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def size(count: int) -> str:
    """A number of bytes as people read it."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
