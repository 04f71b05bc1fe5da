"""A browser, and a server with something to look at. All tests of the folder share an event loop, as the browser's
connection lives on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from forge_jobs import Storage, open_storage

from .scenery import QUEUES, furnish
from .served import served
from .watched import Watched, open_page


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, or what FORGE_CHROMIUM names."""
    path = os.environ.get("FORGE_CHROMIUM") or shutil.which("chromium")
    assert path, "no chromium: sudo sh tests/check-system.sh installs it"
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield running
        await running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def furnished(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Storage, Path]]:
    """A store with something of everything, and its folder."""
    folder = tmp_path_factory.mktemp("served")
    async with open_storage(f"sqlite:///{folder}/jobs.db") as storage:
        await furnish(storage)
        yield storage, folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url(furnished: tuple[Storage, Path]) -> AsyncIterator[str]:
    """Where the dashboard of that store is, with a worker in the same process."""
    storage, folder = furnished
    options = ("--workers", "scenery:handlers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGE_QUEUES", ",".join(QUEUES))
        patch.setenv("FORGE_WORKER_NAME", "alpha")
        with served(storage.url, folder / "serve.log", *options) as address:
            yield address


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, url: str) -> AsyncIterator[Watched]:
    """A fresh page; at the end it must not have complained."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    watched = await open_page(context, url)
    yield watched
    await context.close()
    watched.assert_quiet()
