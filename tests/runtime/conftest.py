"""Every runtime test has a world of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from forge_jobs import StoreConfig, open_storage

from .world import World

HASTY_S = 0.3
"""How long a call to the store of the hasty world may take."""


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with _world(tmp_path / "jobs.db", StoreConfig(store_deadline_s=5, event_flush_s=0.1)) as made:
        yield made


@pytest_asyncio.fixture
async def hasty_world(tmp_path: Path) -> AsyncIterator[World]:
    """One whose store gives up soon."""
    async with _world(tmp_path / "hasty.db", StoreConfig(store_deadline_s=HASTY_S, event_flush_s=0.1)) as made:
        yield made


@pytest_asyncio.fixture
async def memory_world() -> AsyncIterator[World]:
    """One without a file."""
    async with open_storage("sqlite:///:memory:") as storage:
        made = World(storage, None)
        yield made
        await made.close()


@asynccontextmanager
async def _world(database: Path, config: StoreConfig) -> AsyncIterator[World]:
    async with open_storage(f"sqlite:///{database}", config=config) as storage:
        made = World(storage, database)
        yield made
        await made.close()
