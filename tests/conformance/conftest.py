"""SQLite under the conformance suite: a real file for every store."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from forge_jobs.clock import Clock
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage


class SqliteBackend:
    """Stores in numbered files of one folder."""

    name = "sqlite"
    one_host = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened = 0

    def open(self, clock: Clock) -> AbstractAsyncContextManager[Storage]:
        self._opened += 1
        return self.reopen(clock)

    def reopen(self, clock: Clock) -> AbstractAsyncContextManager[Storage]:
        return open_storage(f"sqlite:///{self._folder}/jobs-{self._opened}.db", clock=clock)


@pytest.fixture
def backend(tmp_path: Path) -> SqliteBackend:
    return SqliteBackend(tmp_path)
