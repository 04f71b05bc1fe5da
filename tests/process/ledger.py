"""Evidence outside the queue's own database: what handlers did, in the order it happened.

One file per process, one `write` per event, so that an event is there once the call has returned, whatever happens
to the process. Times are of CLOCK_MONOTONIC, which all processes of a host share and which runs on in SIGSTOP.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = "FORGE_TEST_LEDGER"
"""The environment variable that says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event of one process."""

    what: str
    at: float
    pid: int
    number: int
    job: str = ""
    fence: int = 0
    attempt: int = 0
    note: str = ""


class Ledger:
    """The writing side, in a process under test."""

    def __init__(self, directory: str) -> None:
        path = Path(directory) / f"{os.getpid()}-{time.monotonic_ns()}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._number = 0

    def write(self, what: str, **fields: Any) -> None:
        self._number += 1
        event = {"what": what, "at": time.monotonic(), "pid": os.getpid(), "number": self._number, **fields}
        line = f"{json.dumps(event)}\n".encode()
        assert os.write(self._file, line) == len(line)


def read(directory: Path) -> list[Entry]:
    """Every event of every process, oldest first. A torn last line is dropped."""
    found = [
        Entry(**json.loads(line))
        for path in directory.glob("*.jsonl")
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    return sorted(found, key=lambda entry: (entry.at, entry.pid, entry.number))
