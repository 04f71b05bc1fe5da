"""On what the numbers were taken: a number without this means nothing."""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from forge_jobs.bench.scratch import Scratch, Store

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
    settings: dict[str, str]
    where: str
    file_system: str | None
    jobs: int
    repeat: int

    @property
    def in_memory(self) -> bool:
        """Whether the store was on a file system that loses everything with the power."""
        return self.file_system in MEMORY_FILE_SYSTEMS


def look_around(scratch: Scratch, repeat: int) -> Environment:
    """The environment of the measures that are about to run."""
    with scratch.store() as store:
        status = asyncio.run(_status(store))
    place = scratch.place(status)
    packages = {name: version(name) for name in ("forge-jobs", "msgspec")}
    return Environment(
        taken_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        load=tuple(round(load, 2) for load in os.getloadavg()),
        system=platform.platform(),
        versions={**packages, "python": platform.python_version(), **place.versions},
        backend=status["backend"],
        durability=status["durability"],
        settings=dict(place.settings),
        where=place.where,
        file_system=place.file_system,
        jobs=scratch.sizes.jobs,
        repeat=repeat,
    )


async def _status(store: Store) -> dict[str, Any]:
    async with store.open() as storage:
        return await storage.maintenance.status()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
