"""Scratch stores in files of a folder."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from forge_jobs.bench.measure import Sizes
from forge_jobs.bench.raw import Raw
from forge_jobs.bench.scratch import Place, Store, scratch_folder
from forge_jobs.bench.sqlite.raw import SqliteRaw, connect
from forge_jobs.storage.open import Backend, drop_store, migrate, sqlite_path


class SqliteScratch:
    """Implements `Scratch`."""

    backend = Backend.SQLITE

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self._numbers = count(1)

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = self._file(f"jobs-{next(self._numbers)}")
        try:
            asyncio.run(migrate(store.url))
            yield store
        finally:
            asyncio.run(drop_store(store.url))

    def once(self, name: str, fill: Callable[[Raw], None]) -> Store:
        store = self._file(name)
        if not Path(sqlite_path(store.url)).exists():
            asyncio.run(migrate(store.url))
            with self.raw(store) as raw:
                fill(raw)
        return store

    @contextmanager
    def raw(self, store: Store) -> Iterator[SqliteRaw]:
        with closing(connect(sqlite_path(store.url))) as connection:
            yield SqliteRaw(connection)

    def place(self, status: Mapping[str, Any]) -> Place:
        return Place(
            where=str(self.folder.parent),
            file_system=status["file_system"] or None,
            settings={"synchronous": status["synchronous"]},
            versions={"sqlite": sqlite3.sqlite_version},
        )

    def _file(self, name: str) -> Store:
        return Store(f"sqlite:///{self.folder / name}.db")


@contextmanager
def sqlite_scratch(parent: Path | None, sizes: Sizes) -> Iterator[SqliteScratch]:
    """Stores in a new folder in `parent`."""
    with scratch_folder(parent) as folder:
        yield SqliteScratch(folder, sizes)
