"""On what the numbers were taken: a number without this means nothing."""

from __future__ import annotations

import os
import platform
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from forge_jobs.bench.scratch import Scratch, url_of
from forge_jobs.storage.open import open_storage

MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine, the software and the store of a run."""

    taken_at: str
    cpu: str
    cores: int
    memory_mib: int
    load: tuple[float, ...]
    system: str
    versions: dict[str, str]
    backend: str
    durability: str
    synchronous: str
    directory: str
    file_system: str
    jobs: int
    repeat: int

    @property
    def in_memory(self) -> bool:
        """Whether the store was on a file system that loses everything with the power."""
        return self.file_system in MEMORY_FILE_SYSTEMS


async def look_around(scratch: Scratch, repeat: int) -> Environment:
    """The environment of the measures that are about to run."""
    async with open_storage(url_of(scratch.folder / "environment.db")) as storage:
        status: dict[str, Any] = await storage.maintenance.status()
    packages = {name: version(name) for name in ("forge-jobs", "msgspec")}
    return Environment(
        taken_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        load=tuple(round(load, 2) for load in os.getloadavg()),
        system=platform.platform(),
        versions={**packages, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version},
        backend=status["backend"],
        durability=status["durability"],
        synchronous=status["synchronous"],
        directory=str(scratch.folder.parent),
        file_system=status["file_system"],
        jobs=scratch.sizes.jobs,
        repeat=repeat,
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
