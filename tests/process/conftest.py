"""Every process test has a stage of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from forge_jobs import Storage, open_storage

from .stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest_asyncio.fixture
async def storage(stage: Stage) -> AsyncIterator[Storage]:
    """The stage's store, as the test sees it."""
    async with open_storage(stage.url) as opened:
        yield opened
