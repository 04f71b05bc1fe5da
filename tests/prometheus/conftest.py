"""A store on each backend, and its exposition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from forge_jobs import StoreConfig, open_storage
from forge_jobs.clock import ManualClock
from forge_jobs.storage.protocol import Storage
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.postgres import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Storage]:
    if request.param == "sqlite":
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db", clock=clock) as opened:
            yield opened
        return
    running: Server = request.getfixturevalue("server")
    database = running.new_store()
    async with open_storage(database, clock=clock, config=StoreConfig()) as opened:
        yield opened
    running.drop_database(database)


@pytest.fixture
def beater(storage: Storage) -> Iterator[Beater]:
    with Beater(storage) as beating:
        yield beating
