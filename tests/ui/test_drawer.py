"""A job beside the list it was opened from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from forge_jobs import EnqueueRequest, Storage
from forge_jobs.testing.cluster import until

from .watched import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_job_opens_beside_its_list_and_the_next_one_follows(page: Watched) -> None:
    await page.go("/jobs?q=queue:mail status:done")
    rows = page.page.locator("tbody tr")
    await expect(rows).not_to_have_count(0)
    ids = [str(await rows.nth(n).get_attribute("data-key")) for n in range(2)]
    drawer, keys = page.page.get_by_role("dialog", name="Job", exact=True), page.page.keyboard
    await keys.press("j")
    await keys.press("Enter")
    await expect(drawer).to_contain_text(ids[0])
    await expect(drawer).to_contain_text("@example.org")
    await expect(drawer).to_be_focused()
    await expect(page.page).to_have_title(re.compile(f"mail.send …{ids[0][-8:]}"))
    await expect(page.page.locator("main h1")).to_have_text("Jobs")
    await keys.press("j")
    await expect(drawer).to_contain_text(ids[1])
    await expect(drawer).to_contain_text("2 of")
    await page.page.reload()
    await expect(drawer).to_contain_text(ids[1])  # the address has it
    await keys.press("k")
    await expect(drawer).to_contain_text(ids[0])
    await expect(page.button("Job before (k)")).to_be_disabled()
    await page.button("Next job (j)").click()
    await expect(drawer).to_contain_text(ids[1])
    await keys.press("Escape")
    await expect(drawer).to_have_count(0)
    await expect(page.page).to_have_title("Jobs · forge-jobs")
    await keys.press("o")
    await expect(drawer).to_contain_text(ids[1])
    await page.page.go_back()
    await expect(drawer).to_have_count(0)
    await expect(rows.nth(1)).to_have_attribute("data-key", ids[1])
    await rows.nth(1).get_by_role("link").click()
    await expect(drawer).to_contain_text(ids[1])
    await keys.press("f")
    await expect(page.page.locator("main h1")).to_contain_text("mail.send")
    await expect(drawer).to_have_count(0)
    assert page.page.url.endswith(f"/jobs/{ids[1]}")


async def test_what_is_done_in_the_drawer_leaves_the_list_as_it_was(
    page: Watched, furnished: tuple[Storage, Path]
) -> None:
    storage, _ = furnished
    added = await storage.jobs.enqueue_bulk(
        [EnqueueRequest("drawer.one", {"n": n}, queue="billing", delay=900) for n in range(3)]
    )
    await page.go("/scheduled?q=kind:drawer.one")
    rows = page.page.locator("tbody tr")
    await expect(rows).to_have_count(3)
    drawer, keys = page.page.locator(".drawer"), page.page.keyboard
    await rows.nth(1).click()
    await expect(drawer).to_contain_text("scheduled")
    await keys.press("d")
    await page.confirm("Delete")
    await expect(drawer).to_have_count(0)
    await expect(page.page.locator("main h1")).to_have_text("Scheduled")
    await expect(page.page.locator("tbody tr:not(.gone)")).to_have_count(2)
    assert await storage.jobs.get(added[1].id) is None
    await rows.nth(0).click()
    await storage.jobs.cancel(added[0].id)  # by somebody else: the drawer tells, the row stays
    await storage.events.flush()
    await expect(drawer).to_contain_text("cancelled")
    await expect(page.page.locator(f"[data-key='{added[0].id}']")).to_have_class(re.compile("gone"))
    await drawer.get_by_role("button", name="Retry").click()
    await page.confirm("Retry")

    async def retried() -> bool:
        detail = await storage.jobs.get(added[0].id)
        return detail is not None and detail.row.status == "pending"

    await until(retried)
    await expect(drawer).to_contain_text(added[0].id)


async def test_a_long_payload_is_shown_in_part_and_downloaded_whole(
    page: Watched, furnished: tuple[Storage, Path]
) -> None:
    storage, _ = furnished
    payload = {"rows": [f"row {n}" for n in range(9_000)], "api_key": "hunter2", "last": "the end of it"}
    added = await storage.jobs.enqueue(EnqueueRequest("drawer.long", payload, queue="billing", delay=900))
    await page.go("/scheduled?q=kind:drawer.long")
    await page.page.locator("tbody tr").click()
    drawer = page.page.locator(".drawer")
    await expect(drawer).to_contain_text("Its first 64.0 KiB")
    await expect(drawer).to_contain_text('"row 8"')
    await expect(drawer).not_to_contain_text("the end of it")
    async with page.page.expect_download() as download:
        await drawer.get_by_role("link", name="Download").click()
    saved = await download.value
    assert saved.suggested_filename == f"job-{added.id}.json"
    assert json.loads(Path(await saved.path()).read_text()) == {**payload, "api_key": "[redacted]"}
