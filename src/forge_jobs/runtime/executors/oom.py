"""Whether the kernel has killed processes of this cgroup because memory was short."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PROC: Final = Path("/proc/self/cgroup")
MOUNT: Final = Path("/sys/fs/cgroup")


def oom_kills(groups: Path | None = None, mount: Path | None = None) -> int | None:
    """How many so far; None where that is not known."""
    groups, mount = groups or PROC, mount or MOUNT
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            file = mount / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = mount / "memory" / path.lstrip("/") / "memory.oom_control"
        else:
            continue
        for candidate in (file, mount / file.name):  # in a container the path may be that of the host
            if (count := _count(candidate)) is not None:
                return count
    return None


def _count(file: Path) -> int | None:
    try:
        fields = dict(line.split(" ", 1) for line in file.read_text().splitlines())
        return int(fields["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
