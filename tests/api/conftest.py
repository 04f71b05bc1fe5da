"""The API over a real store of each backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.testing.postgres import Server

BACKENDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty store of each backend in turn."""
    if request.param == "memory":
        yield "sqlite:///:memory:"
        return
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db"
        return
    server: Server = request.getfixturevalue("postgres")
    made = server.new_store()
    yield made
    server.drop_database(made)


@pytest.fixture
async def storage(url: str) -> AsyncIterator[Storage]:
    async with open_storage(url) as opened:
        yield opened
