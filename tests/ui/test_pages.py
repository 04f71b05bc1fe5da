"""Every page of the dashboard, with real data: what it shows, and that it fits."""

from __future__ import annotations

import csv
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, expect

from forge_jobs import EnqueueRequest, Storage

from .scenery import HOSTILE
from .watched import Watched, open_page

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLACES = {
    "/": "Overview",
    "/jobs": "Jobs",
    "/scheduled": "Scheduled",
    "/retries": "Retries",
    "/dead": "Dead",
    "/queues": "Queues",
    "/queues/mail": "mail",
    "/kinds": "Kinds",
    "/kinds/mail.send": "mail.send",
    "/limits": "Rate limits",
    "/workers": "Workers",
    "/schedules": "Schedules",
    "/schedules/nightly": "nightly",
    "/metrics": "Metrics",
    "/store": "Store",
    "/audit": "Audit",
}
SHOWN = {
    "/": ["queue billing has no live worker", "image.resize", "1 of 30", "to look at"],
    "/jobs": ["mail.send", "ledger.close", "report.build"],
    "/scheduled": ["later4@example.org"],
    "/retries": ["refused slow@example.org"],
    "/dead": ["smtp.example.org refused"],
    "/queues": ["billing", "not served", "paused"],
    "/queues/mail": ["Slots at most", "Throughput"],
    "/kinds": ["image.resize", "ledger.close", "not served", "Send a mail.", "bank", "hidden"],
    "/kinds/mail.send": ["Schema of its payloads", '"to"', "Send a mail.", "usual keys", "dialect"],
    "/limits": ["smtp", "50 of 50", "bank", "card.charge"],
    "/workers": ["alpha", "No live worker serves queue billing"],
    "/schedules": ["nightly", "At 02:30 every day", "30 2 * * *", "Europe/Berlin"],
    "/schedules/nightly": ["02:30:00", "report.build"],
    "/metrics": ["Throughput", "Worker processes"],
    "/store": [
        "sqlite",
        "Durability",
        "full",
        "queue billing has no live worker",
        "start a worker with --queues billing",
    ],
    "/audit": ["nightly", "smtp"],
}


async def test_every_page_shows_what_is_in_the_store(page: Watched) -> None:
    for place, title in PLACES.items():
        await page.go(place)
        await expect(page.page.locator("main h1")).to_contain_text(title)
        for text in SHOWN[place]:
            await expect(page.page.locator("main")).to_contain_text(text)


async def test_scheduled_jobs_are_those_to_come(page: Watched) -> None:
    await page.go("/scheduled")
    await expect(page.page.locator("tbody tr")).to_have_count(6)
    await expect(page.page.locator("main")).not_to_contain_text("ledger.close")


async def test_pages_fit_a_phone_and_keep_their_menu(browser: Browser, url: str) -> None:
    for width in (390, 320):
        context = await browser.new_context(viewport={"width": width, "height": 844}, color_scheme="dark")
        page = await open_page(context, url)
        await page.go("/jobs?q=status:dead error:refused")
        dead = await page.page.locator("tbody tr").first.get_attribute("data-key")
        of_job = (f"/jobs/{dead}", f"/dead?job={dead}")
        for place in (*(PLACES if width == 320 else ("/", "/jobs", "/queues/mail")), *of_job):
            await page.go(place)
            if "?job=" in place:
                await expect(page.page.locator(".drawer")).to_contain_text("exhausted")
            spare = await page.page.evaluate("innerWidth - document.documentElement.scrollWidth")
            assert spare >= 0, f"{place} is {-spare} px too wide at {width} px"
        await page.page.keyboard.press("Escape")
        await page.button("Menu").click()
        await page.page.get_by_role("link", name="Queues").click()
        await expect(page.page.locator("main h1")).to_have_text("Queues")
        await context.close()
        page.assert_quiet()


async def test_a_job_shows_why_it_waits_and_what_went_wrong(page: Watched) -> None:
    await page.go("/jobs?q=status:dead error:refused")
    await page.page.locator("tbody tr").first.click()
    job = page.page.locator(".drawer")
    await expect(job).to_contain_text("ConnectionError: smtp.example.org refused gone")
    await expect(job).to_contain_text("exhausted")
    await expect(page.page.locator(".timeline li")).to_have_count(3)
    await page.go("/jobs?q=kind:ledger.close")
    await page.page.locator("tbody tr").first.click()
    await expect(page.page.locator(".explain")).to_contain_text("billing")


async def test_text_from_the_store_stays_text(page: Watched) -> None:
    await page.go("/jobs?q=" + quote(f'key:"{HOSTILE}"'))
    row = page.page.locator("tbody tr")
    await expect(row).to_have_count(1)
    await row.click()
    await page.page.get_by_role("link", name="Full page").click()
    main = page.page.locator("main")
    await expect(main).to_contain_text(HOSTILE)
    await expect(main).to_contain_text("<img src=x onerror='window.hacked=2'>")
    await expect(main).to_contain_text("<b>b</b>")
    await expect(main).to_contain_text("123456789012345678901234567890")
    await expect(main).to_contain_text("[redacted]")
    await expect(main).not_to_contain_text("hunter2")
    await expect(page.page.locator(".escaped")).to_have_text(["\\u{202e}", "\\u{200b}"])
    await page.go("/dead?view=jobs")
    await expect(main).to_contain_text(HOSTILE)
    assert await page.page.evaluate("window.hacked") is None


async def test_the_keyboard_reaches_everything(page: Watched) -> None:
    await page.go("/")
    keys = page.page.keyboard
    await keys.press("g")
    await keys.press("j")
    await expect(page.page.locator("main h1")).to_have_text("Jobs")
    await expect(page.page.locator("tbody tr")).not_to_have_count(0)
    await keys.press("j")
    await keys.press("j")
    await keys.press("x")
    await expect(page.page.locator(".list-bar")).to_contain_text("1 selected")
    await keys.press("/")
    await keys.type("queue:bil")
    await keys.press("Tab")
    await expect(page.page.get_by_label("Search jobs")).to_have_value("queue:billing ")
    await expect(page.page.locator("tbody tr")).to_have_count(3)
    assert "queue%3Abilling" in page.page.url
    await page.go("/jobs?q=queue:mail")  # while the field has the focus
    await expect(page.page.get_by_label("Search jobs")).to_have_value("queue:mail")
    await keys.press("Escape")
    await keys.press("Control+k")
    await keys.type("nightly")
    await keys.press("Escape")
    await keys.press("?")
    await expect(page.page.get_by_role("dialog")).to_contain_text("Go to a page, queue, kind or job")
    await keys.press("Escape")
    await keys.press("Control+k")
    await keys.type("images")
    await keys.press("Enter")
    await expect(page.page.locator("main h1")).to_contain_text("images")


async def test_a_chart_can_be_read_as_a_table_and_dragged(page: Watched) -> None:
    await page.go("/metrics?range=6h")
    chart = page.page.get_by_role("figure", name="Throughput")
    plot = chart.locator(".u-over")
    box = await plot.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    await page.page.mouse.move(box["x"] + box["width"] * 0.3, middle)
    await page.page.mouse.down()
    await page.page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
    await page.page.mouse.up()
    await expect(page.button("Reset")).to_be_visible()
    await plot.click(position={"x": box["width"] / 2, "y": 20})  # pins the crosshair
    await page.page.mouse.move(2, 2)
    tips = page.page.locator(".tip")
    await expect(tips).not_to_have_count(0)
    await page.page.keyboard.press("Escape")
    await expect(tips).to_have_count(0)
    assert "from=" in page.page.url
    await page.button("Reset").click()
    await chart.get_by_role("button", name="Table").click()
    await expect(chart.get_by_role("columnheader")).to_have_text(["time", "added", "done", "run again", "dead"])


async def test_an_export_is_safe_to_open_in_a_spreadsheet(page: Watched, furnished: tuple[Storage, Path]) -> None:
    storage, _ = furnished
    keys = ["=1+1", "+1", "-1", "@x", 'a "b", c']
    await storage.jobs.enqueue_bulk(
        [EnqueueRequest("export.one", {}, queue="billing", dedupe_key=key, delay=600) for key in keys]
    )
    await page.go("/jobs?q=kind:export.one")
    async with page.page.expect_download() as download:
        await page.button("Export").click()
    saved = await (await download.value).path()
    rows = list(csv.DictReader(saved.read_text().splitlines()))
    assert {row["dedupe_key"] for row in rows} == {"'=1+1", "'+1", "'-1", "'@x", 'a "b", c'}


async def test_the_first_load_is_small(page: Watched) -> None:
    sizes: list[int] = []
    page.page.on("response", lambda response: sizes.append(int(response.headers.get("content-length", "0"))))
    await page.go("/")
    assert 50_000 < sum(sizes) < 300_000, sizes
