"""Who sees what; what is shown while the server is away; and that everybody can read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from forge_jobs import EnqueueRequest, Storage, open_storage
from forge_jobs.storage.types.job import JobFilter

from .served import served, token_file
from .test_pages import PLACES
from .watched import Watched, open_page

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = Path(__file__).parents[2] / "ui" / "node_modules" / "axe-core" / "axe.min.js"
DARK = ("/", "/jobs", "/dead", "/queues/mail", "/workers", "/schedules/nightly", "/store", "job", "help")
UNKNOWN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest_asyncio.fixture(loop_scope="session")
async def view(browser: Browser) -> AsyncIterator[Page]:
    """A page of its own, which may complain: these tests turn servers off."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    yield await context.new_page()
    await context.close()


async def test_a_read_token_logs_in_below_a_prefix_and_finds_nothing_to_press(
    view: Page, furnished: tuple[Storage, Path], tmp_path: Path
) -> None:
    storage, _ = furnished
    path, tokens = token_file(tmp_path, watcher="read", chief="admin")
    options = ("--token-file", str(path), "--prefix", "/ops/jobs")
    with served(storage.url, tmp_path / "log", *options) as address:
        url = f"{address}/"
        page = Watched(view, url)
        page.expected = ("401", "Unauthorized")
        await view.goto(url)
        await view.get_by_label("Token").fill("wrong-" + "x" * 32)
        await page.button("Log in").click()
        await expect(view.get_by_role("alert")).to_contain_text("unauthorized")
        await view.get_by_label("Token").fill(tokens["watcher"])
        await page.button("Log in").click()
        await expect(view.locator("main h1")).to_have_text("Overview")
        job = (await storage.jobs.list_jobs(JobFilter(), limit=1)).items[0]
        for place in (*PLACES, f"/jobs/{job.id}"):
            if place == "/audit":
                continue  # not for this role, and not in its menu
            await page.go(place)
            names = await view.locator("button:visible, a.button:visible").all_inner_texts()
            acts = {"New job", "Retry", "Cancel", "Delete", "Run now", "Change", "Pause", "Resume", "Trigger", "Edit",
                    "Disable", "Enable", "Remove", "Drain", "New limit", "New queue", "New schedule", "Stop", "Quiet",
                    "Clean up now", "Retry group", "Save 1 change"}  # fmt: skip
            assert not acts & {name.strip() for name in names}, place
        await expect(view.get_by_role("link", name="Audit")).to_have_count(0)
        await expect(view.locator(".strip")).to_contain_text("change nothing")
        await expect(view.locator(".live")).to_have_text("Live")
        await page.button("Log out").click()
        await expect(view.get_by_label("Token")).to_be_visible()
        page.assert_quiet()


async def test_an_empty_store_says_what_to_do_next(view: Page, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/empty.db"
    async with open_storage(url):
        pass
    with served(url, tmp_path / "log") as address:
        page = Watched(view, address)
        for place, hint in {
            "/jobs": "forge-jobs enqueue",
            "/dead": "No dead jobs",
            "/queues": "first job",
            "/workers": "forge-jobs worker",
            "/schedules": "make one here",
            "/kinds": "forge-jobs worker",
            "/limits": "forge-jobs limits",
            "/metrics": "No data in this window",
        }.items():
            await page.go(place)
            await expect(view.locator("main")).to_contain_text(hint)
        page.assert_quiet()


async def test_what_was_read_stays_while_the_server_is_away(view: Page, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/jobs.db"
    async with open_storage(database) as storage:
        await storage.jobs.enqueue(EnqueueRequest("mail.send", {}, queue="mail"))
    with served(database, tmp_path / "log") as url:
        page = Watched(view, url)
        await page.go("/jobs")
        await expect(view.locator("tbody tr")).to_have_count(1)
        await page.go(f"/jobs/{UNKNOWN}")
        await expect(view.locator(".state")).to_contain_text("not_found")
        await expect(view.locator(".state")).to_contain_text("request")
        await page.go("/jobs")
        await expect(view.locator("tbody tr")).to_have_count(1)
    await expect(view.locator(".live")).to_contain_text("Off", timeout=20_000)
    await expect(view.locator(".stale")).to_contain_text("does not answer", timeout=20_000)
    await expect(view.locator("tbody tr")).to_have_count(1)
    with served(database, tmp_path / "again", port=int(url.rstrip("/").rpartition(":")[2])):
        await view.locator(".stale").get_by_role("button", name="Retry").click()
        await expect(view.locator(".stale")).to_have_count(0)
        await expect(view.locator(".live")).not_to_contain_text("Off", timeout=20_000)


async def test_axe_finds_nothing_serious_in_light_and_dark(browser: Browser, url: str) -> None:
    assert AXE.exists(), "axe-core is not there: the build of the dashboard brings it (cd ui && npm ci)"
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = await open_page(context, url)
    await page.go("/")
    await page.page.evaluate(AXE.read_text())  # it stays: pages change behind the hash
    found: list[str] = []
    for place in (*PLACES, "job", "new job", "help"):
        if place == "job":
            await page.go("/dead?view=jobs")
            await page.page.locator("tbody tr").first.click()
            await expect(page.page.locator(".drawer .timeline")).to_be_visible()
        elif place == "new job":
            await page.page.keyboard.press("Escape")
            await page.button("New job").click()
        elif place == "help":
            await page.page.keyboard.press("Escape")
            await page.page.keyboard.press("?")
        else:
            await page.go(place)
        found += [f"light {place}: {one}" for one in await violations(page.page)]
        if place in DARK:  # the other rules do not depend on colours
            await page.page.emulate_media(color_scheme="dark")
            await expect(page.page.locator("html")).to_have_attribute("data-theme", "dark")
            found += [f"dark {place}: {one}" for one in await violations(page.page, ["color-contrast"])]
            await page.page.emulate_media(color_scheme="light")
            await expect(page.page.locator("html")).not_to_have_attribute("data-theme", "dark")
    await context.close()
    assert not found, "\n".join(found)


async def violations(page: Page, rules: list[str] | None = None) -> list[str]:
    """Serious and critical ones, with the elements. Of a list the first rows stand for all."""
    options = {"resultTypes": ["violations"], "preload": False, **({"runOnly": rules} if rules else {})}
    answer: dict[str, Any] = await page.evaluate(
        "options => axe.run({exclude: ['tbody tr:nth-child(n + 9)']}, options)", options
    )
    assert answer["passes"], "no rule was applied"
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][-160:]}"
        for one in answer["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]
