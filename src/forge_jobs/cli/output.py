"""What commands print. Data goes to stdout, talk to stderr.

On a terminal tables are drawn by rich; in a pipe they are plain aligned text, cut nowhere. Everything that comes from
a store or a user is shown with control, ESC and bidirectional characters escaped, so that it cannot move the cursor,
forge a line or turn text round.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from forge_jobs.clock import format_instant
from forge_jobs.text import printable, span

GAP: Final = "  "
NARROWEST: Final = 20
"""Columns of text that a folded or cut cell keeps; a terminal too narrow for that breaks the lines."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `right` aligns numbers. On a narrow terminal `wide` is folded, and `brief` is cut."""

    title: str
    right: bool = False
    wide: bool = False
    brief: bool = False


def prepare_streams() -> None:
    """Make the standard streams take any text: what the encoding lacks is shown as an escape."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def can_draw() -> bool:
    """Whether stdout is a terminal that shows boxes and colours, and nobody asked for plain text."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and _is_unicode(sys.stdout) and not plain


def may_ask() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def line(text: str = "") -> None:
    """A line of data."""
    sys.stdout.write(f"{printable(text)}\n")


def raw(text: str) -> None:
    """Data that is passed on as it is, such as SQL or an export."""
    sys.stdout.write(text)


def flush() -> None:
    """Send what was written on its way: whoever follows wants it now."""
    sys.stdout.flush()


def say(text: str) -> None:
    """A line of talk."""
    with contextlib.suppress(OSError):  # nobody listens
        sys.stdout.flush()  # in the order of writing, where both end in one place
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def document(value: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json_text(value, indent=2) + "\n")


def json_lines(values: Iterable[Any]) -> None:
    """One JSON document a line."""
    for value in values:
        sys.stdout.write(json_text(value) + "\n")


def for_programs(items: Sequence[Any], *, as_json: bool, as_jsonl: bool) -> bool:
    """Print a list that is at hand as a whole, if it is wanted for programs; whether it was."""
    if as_json:
        document({"items": items, "next_cursor": None, "total": len(items)})
    elif as_jsonl:
        json_lines(items)
    return as_json or as_jsonl


def json_text(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON, in which characters that do not show are escaped, and others if stdout cannot take them."""
    text = json.dumps(value, ensure_ascii=not _is_unicode(sys.stdout), indent=indent, default=_plain)
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c in " \n" or unicodedata.category(c)[0] not in "CZ" else _json_escape(c) for c in text)


def table(columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> None:
    """A table: drawn on a terminal, aligned text elsewhere."""
    cells = [[printable(cell(value)) for value in row] for row in rows]
    if can_draw():
        _draw(columns, cells)
        return
    lines = [[column.title.upper() for column in columns], *cells]
    widths = [max(_width(row[n]) for row in lines) for n in range(len(columns))]
    for row in lines:
        parts = [_pad(text, width, column.right) for text, width, column in zip(row, widths, columns, strict=True)]
        sys.stdout.write(GAP.join(parts).rstrip() + "\n")


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one pair a line. A value of several lines is indented below its name."""
    shown = [(name, printable(cell(value), newline=True)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        if "\n" in value:
            value = "".join(f"\n    {part}" for part in value.splitlines())
        sys.stdout.write(f"{bold(name.ljust(width))}  {value}".rstrip() + "\n")


def heading(text: str) -> None:
    """A line above a part of the output."""
    sys.stdout.write(f"\n{bold(printable(text))}\n")


def bold(text: str) -> str:
    """`text` in bold on a terminal."""
    return f"\x1b[1m{text}\x1b[0m" if can_draw() else text


def cell(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, timedelta):
        return age(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value) or "-"
    return str(value)


def age(duration: timedelta) -> str:
    """A duration in its two largest units: `3d 4h`, `12m 5s`, `0.4s`."""
    return span(duration)


def instant(at: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds; nothing of nothing."""
    return None if at is None else format_instant(at)


def _draw(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = [max(_width(row[n]) for row in [[c.title for c in columns], *cells]) for n in range(len(columns))]
    gives_way = next((n for n, column in enumerate(columns) if column.wide or column.brief), len(columns) - 1)
    left = Console().width - sum(widths) + widths[gives_way] - len(GAP) * (len(columns) - 1)
    widths[gives_way] = min(widths[gives_way], max(left, NARROWEST))
    drawn = Table(box=None, pad_edge=False, padding=(0, len(GAP), 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        drawn.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            overflow="fold" if column.wide else "ellipsis",
            no_wrap=not column.wide,
            width=width,
        )
    painted = [column.title in _PAINTED for column in columns]
    for row in cells:
        styles = [_STYLES.get(text, "") if paint else "" for text, paint in zip(row, painted, strict=True)]
        drawn.add_row(*(Text(text, style=style) for text, style in zip(row, styles, strict=True)))
    Console(highlight=False, width=sum(widths) + len(GAP) * (len(columns) - 1)).print(drawn, crop=False)


_PAINTED: Final = frozenset({"status", "state", "verdict"})
_STYLES: Final = {
    "pending": "blue",
    "in_progress": "cyan",
    "done": "green",
    "failed": "yellow",
    "dead": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
    "running": "green",
    "draining": "yellow",
    "fenced": "red",
    "gone": "red",
    "paused": "yellow",
}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _json_escape(char: str) -> str:
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]


def _is_unicode(stream: Any) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _pad(text: str, width: int, right: bool) -> str:
    gap = " " * (width - _width(text))
    return gap + text if right else text + gap


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal: wide East Asian characters and emoji take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
