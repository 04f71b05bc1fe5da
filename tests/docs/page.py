"""A documentation page as its tests see it: fenced blocks with what is said about them, links, headings.

What is said about a block stands in an HTML comment on the line above its fence:

    <!-- file: app.py -->      the block is the content of that file
    <!-- output -->            the block is what the Python block above printed
    <!-- exits: 1 -->          the last command of the block ends with this code
    <!-- not run: reason -->   it shows what is not installed here
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_FENCE: Final = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)\s*$")
_NOTE: Final = re.compile(r"^<!-- (?P<key>file|output|exits|not run)(?:: (?P<value>.+?))? -->$")
_LINK: Final = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (?P<title>.+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block. `line` is that of its first line of content."""

    language: str
    text: str
    line: int
    notes: dict[str, str]


def pages() -> list[Path]:
    """Every page of the project."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page from top to bottom."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        at += 1
        if fence is None:
            continue
        begin = at
        while lines[at] != fence["fence"]:
            at += 1
        notes = {}
        above = begin - 2
        while above >= 0 and (note := _NOTE.match(lines[above])) is not None:
            notes[note["key"]] = note["value"] or ""
            above -= 1
        text = "\n".join(lines[begin:at]) + "\n"
        found.append(Block(language=fence["language"], text=text, line=begin + 1, notes=notes))
        at += 1
    return found


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^(`{3,})\w*\n.*?^\1$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Where the page leads to."""
    return [match["target"] for match in _LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(page)))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = [match["title"] for line in prose(page).splitlines() if (match := _HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tables(page: Path) -> list[list[list[str]]]:
    """The tables of a page: rows of cells, the titles first, without the line of dashes."""
    found: list[list[list[str]]] = []
    rows: list[list[str]] = []
    for line in [*prose(page).splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not all(set(cell) <= {"-", ":"} for cell in cells):
                rows.append(cells)
        elif rows:
            found.append(rows)
            rows = []
    return found
