"""The dashboard over a PostgreSQL store: shorter, as it speaks to the same API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from forge_jobs import Storage, open_storage
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.testing.postgres import Server

from .scenery import furnish
from .served import served
from .test_pages import SHOWN
from .watched import open_page

pytestmark = pytest.mark.asyncio(loop_scope="session")
SOME = ("/", "/jobs", "/scheduled", "/dead", "/queues", "/workers", "/schedules/nightly", "/metrics")
NEEDS_A_WORKER = {"/workers": ["No live worker serves queue billing"], "/": ["queue billing has no live worker"]}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with Server() as server:
        yield server.new_store()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def storage(database: str) -> AsyncIterator[Storage]:
    async with open_storage(database) as opened:
        await furnish(opened)
        yield opened


async def test_pages_and_acts_are_the_same_on_postgresql(browser: Browser, storage: Storage, tmp_path: Path) -> None:
    with served(storage.url, tmp_path / "log") as url:
        context = await browser.new_context(viewport={"width": 1280, "height": 900})
        page = await open_page(context, url)
        for place in SOME:
            await page.go(place)
            for text in NEEDS_A_WORKER.get(place) or SHOWN[place]:
                await expect(page.page.locator("main")).to_contain_text(text)
        await page.go("/store")
        await expect(page.page.locator("main")).to_contain_text("postgresql 1")
        findings = page.page.get_by_role("region", name="Findings")
        await expect(findings).to_contain_text("fsync is off")  # as it is on the servers of tests
        await findings.get_by_text("that are fine").click()
        await expect(findings).to_contain_text("a process holds at most")
        await page.go("/jobs?q=kind:ledger.close")
        await page.page.locator("tbody tr").nth(1).click()
        drawer = page.page.locator(".drawer")
        await expect(drawer).to_contain_text("queue billing")
        await page.page.keyboard.press("j")
        await expect(drawer).to_contain_text('"day": 0')
        await page.page.keyboard.press("Escape")
        await page.button("Cancel").click()
        await page.confirm("Cancel 3 jobs")
        await expect(page.page.get_by_role("dialog")).to_contain_text("3 changed")
        await context.close()
        page.assert_quiet()
    counts = await storage.jobs.count(JobFilter(kinds=("ledger.close",)))
    assert {status: count for status, count in counts.items() if count} == {"dead": 3}
