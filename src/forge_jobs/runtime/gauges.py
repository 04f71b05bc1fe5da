"""What this process uses of its machine, from the standard library and `/proc`. What a system does not tell is left
out."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

from forge_jobs.storage.types.metric import Summary, Tally

PROC: Final = Path("/proc/self")
_IO: Final = {"read_bytes": "disk_read_bytes", "write_bytes": "disk_write_bytes"}


class ProcessGauges:
    """Samples of one process, gathered until they are taken."""

    def __init__(self) -> None:
        self.minute: int | None = None
        """The minute that they are of."""
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self._cpu_s, self._at_s, self._io = time.process_time(), time.monotonic(), _io()

    def sample(self) -> None:
        """Look once."""
        cpu_s, at_s, io = time.process_time(), time.monotonic(), _io()
        if at_s > self._at_s:
            used = (cpu_s - self._cpu_s) / (at_s - self._at_s) / (os.cpu_count() or 1)
            self._tallies["cpu_pct"].add(100 * used)
        for name, total in io.items():
            self._tallies[name].add(total - self._io.get(name, total))
        self._cpu_s, self._at_s, self._io = cpu_s, at_s, io
        for name, value in _now().items():
            self._tallies[name].add(value)

    def take(self) -> dict[str, Summary]:
        """What was sampled since the last call."""
        taken = {name: tally.take() for name, tally in self._tallies.items()}
        return {name: summary for name, summary in taken.items() if summary is not None}


def _now() -> dict[str, float]:
    found: dict[str, float] = {"threads": threading.active_count()}
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(".")
        found["disk_used_pct"] = 100 * (1 - disk.free / disk.total)
    with contextlib.suppress(OSError):
        found["open_fds"] = len(os.listdir("/dev/fd"))
    with contextlib.suppress(OSError, ValueError):
        found["rss_bytes"] = int((PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        found["threads"] = len(os.listdir(PROC / "task"))  # also those that Python did not start
    return found


def _io() -> dict[str, int]:
    """Bytes that this process read from disks and wrote to them since it began."""
    try:
        lines = (PROC / "io").read_text().splitlines()
    except OSError:
        return {}
    totals = dict(line.split(": ") for line in lines)
    return {name: int(totals[key]) for key, name in _IO.items() if key in totals}


def rss_mib(pid: int) -> float:
    """The resident memory of a process; 0 if it is over, or the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
