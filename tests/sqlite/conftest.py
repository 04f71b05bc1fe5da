"""SQLite tests have a file of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from forge_jobs import Storage, StoreConfig, open_storage


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest_asyncio.fixture
async def storage(database: Path) -> AsyncIterator[Storage]:
    """A store in the file, whose events are written at its end only."""
    async with open_storage(f"sqlite:///{database}", config=StoreConfig(event_flush_s=600)) as opened:
        yield opened
