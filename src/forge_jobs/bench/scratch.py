"""A folder of stores that exist only for a measurement."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from forge_jobs.bench.measure import Sizes
from forge_jobs.storage.open import drop_store, migrate

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where stores are made, and how much is to be done on them."""

    folder: Path
    sizes: Sizes

    @contextmanager
    def store(self) -> Iterator[Path]:
        """An empty store of ours; it is gone after the block."""
        database = self.folder / f"jobs-{next(_numbers)}.db"
        try:
            asyncio.run(migrate(url_of(database)))
            yield database
        finally:
            asyncio.run(drop_store(url_of(database)))

    @contextmanager
    def empty_file(self) -> Iterator[Path]:
        """The path of a database that does not exist yet; it is gone after the block."""
        folder = self.folder / f"generic-{next(_numbers)}"
        folder.mkdir()
        try:
            yield folder / "jobs.db"
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def once(self, name: str, fill: Callable[[Path], None]) -> Path:
        """A store that is filled the first time it is asked for, and kept for the repetitions."""
        database = self.folder / f"{name}.db"
        if not database.exists():
            asyncio.run(migrate(url_of(database)))
            fill(database)
        return database


def url_of(database: Path) -> str:
    return f"sqlite:///{database}"


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder in `parent`, or where the system keeps temporary files; removed after the block."""
    folder = Path(tempfile.mkdtemp(prefix="forge-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
