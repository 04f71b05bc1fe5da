"""Programs as processes of their own, and what is in the store after them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from forge_jobs import SyncQueue
from forge_jobs.storage.types.job import JobFilter

TESTS: Final = Path(__file__).parents[1]
PYTHON: Final = (sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning")
"""Whatever is not closed at the end is told on stderr. Newer Pythons deprecate forks of programs with threads."""
LIMIT_S: Final = 60


def begin(*argv: str) -> subprocess.Popen[str]:
    """A program; its pipes are closed and it is gone when the `with` it is used in ends."""
    return subprocess.Popen(
        [*PYTHON, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS,
    )


def finish(program: subprocess.Popen[str]) -> tuple[int, list[list[str]], str]:
    """Exit status, what it said, and what it complained of."""
    try:
        out, err = program.communicate(timeout=LIMIT_S)
    finally:
        program.kill()
    return program.returncode, [line.split() for line in out.splitlines()], err


def hear(program: subprocess.Popen[str], line: str) -> None:
    """Read what the program says up to this line."""
    assert program.stdout is not None
    assert program.stderr is not None
    heard = ""
    while heard != f"{line}\n":
        heard = program.stdout.readline()
        assert heard, f"it ended and never said {line!r}: {program.stderr.read()}"


def run(name: str, url: str, *argv: str) -> tuple[int, list[list[str]], str]:
    with begin("-m", "sync.programs", name, url, *argv) as program:
        return finish(program)


def acknowledged(said: list[list[str]]) -> list[str]:
    return [words[1] for words in said if words[0] == "ack"]


def stored(url: str) -> dict[str, str]:
    """Every job by id, and its payload."""
    found: dict[str, str] = {}
    with SyncQueue(url) as queue:
        cursor = None
        while True:
            page = queue.list_jobs(JobFilter(), limit=1_000, cursor=cursor)
            found |= {row.id: row.payload for row in page.items}
            cursor = page.next_cursor
            if cursor is None:
                return found


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until the condition gives something true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.005)
