"""Stores that exist only for a measurement."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from forge_jobs.bench.measure import Sizes
from forge_jobs.bench.raw import Raw
from forge_jobs.config import StoreConfig
from forge_jobs.storage.open import Backend, open_storage
from forge_jobs.storage.protocol import Storage

PREFIX = "FORGE_"
URL, SCHEMA = f"{PREFIX}DATABASE_URL", f"{PREFIX}SCHEMA"


@dataclass(frozen=True, slots=True)
class Store:
    """A store of ours, to be opened by this process or another; every setting but these is the default."""

    url: str
    schema: str = StoreConfig().schema

    @property
    def config(self) -> StoreConfig:
        return StoreConfig(schema=self.schema)

    def open(self) -> AbstractAsyncContextManager[Storage]:
        return open_storage(self.url, config=self.config, create=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a worker process on it: this process's, without the settings of another store. An argument
        would show a password to everybody on the machine."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return {**outer, URL: self.url, SCHEMA: self.schema}

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Self:
        return cls(environment[URL], environment[SCHEMA])


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the stores of a run are. settings: those that decide how durable a commit is."""

    where: str
    file_system: str | None
    settings: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)


class Scratch(Protocol):
    """Makes stores on one backend. folder: for logs of workers and other files, gone after the run. sizes: how much is
    to be done on the stores."""

    backend: Backend
    folder: Path
    sizes: Sizes

    def store(self) -> AbstractContextManager[Store]:
        """An empty store; it is gone after the block."""

    def once(self, name: str, fill: Callable[[Raw], None]) -> Store:
        """A store that is filled the first time it is asked for, and kept for the repetitions."""

    def raw(self, store: Store) -> AbstractContextManager[Raw]:
        """Bare SQL on a store."""

    def place(self, status: Mapping[str, Any]) -> Place:
        """Where the stores are, one of whose status is this."""


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder in `parent`, or where the system keeps temporary files; removed after the block."""
    folder = Path(tempfile.mkdtemp(prefix="forge-bench-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
