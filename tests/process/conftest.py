"""Every process test has a stage of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from forge_jobs import Storage, open_storage
from forge_jobs.testing.postgres import Server

from .stage import Stage


@pytest.fixture
def on_a_file(tmp_path: Path) -> Stage:
    """A stage whose store is a file."""
    return Stage(tmp_path)


@pytest.fixture
def stage(on_a_file: Stage) -> Stage:
    return on_a_file


@pytest_asyncio.fixture
async def storage(stage: Stage) -> AsyncIterator[Storage]:
    """The stage's store, as the test sees it."""
    async with open_storage(stage.url) as opened:
        yield opened


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def on_postgresql(server: Server, tmp_path: Path) -> Iterator[Stage]:
    """A stage whose store is an empty database of a server."""
    url = server.new_database()
    yield Stage(tmp_path, url)
    server.drop_database(url)
