"""What buttons and keys do, seen in the store; a job beside the list it was opened from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from forge_jobs import EnqueueRequest, Storage
from forge_jobs.storage.types.job import JobFilter, JobOrder, JobRow
from forge_jobs.storage.types.kind import KindDeclaration
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from .watched import Watched, open_page

pytestmark = pytest.mark.asyncio(loop_scope="session")
Furnished = tuple[Storage, Path]


async def one_of(storage: Storage, **chosen: tuple[str, ...]) -> JobRow:
    return (await storage.jobs.list_jobs(JobFilter(**chosen), limit=1)).items[0]  # type: ignore[arg-type]


async def statuses(storage: Storage, **chosen: tuple[str, ...]) -> dict[str, int]:
    counts = await storage.jobs.count(JobFilter(**chosen))  # type: ignore[arg-type]
    return {status: count for status, count in counts.items() if count}


async def test_a_new_job_is_added_as_it_was_typed(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    await page.go("/jobs")
    await page.button("New job").click()
    await page.page.get_by_label("Kind").fill("ledger.close")
    await page.page.get_by_role("dialog").get_by_label("Queue").fill("billing")
    await page.page.get_by_label("Payload").fill('{"n": 12345678901234567890')
    await expect(page.button("Add")).to_be_disabled()
    await page.page.get_by_label("Payload").fill('{"n": 12345678901234567890}')
    await page.page.get_by_label("Priority").fill("-5")
    await page.confirm("Add")
    await expect(page.page.locator("main h1")).to_contain_text("ledger.close")
    job = await one_of(storage, queues=("billing",))
    assert (job.payload, job.priority, job.id in page.page.url) == ({"n": 12345678901234567890}, -5, True)
    await page.button("Delete").click()
    await page.confirm("Delete")
    await expect(page.page.locator("main h1")).to_have_text("Jobs")
    assert await storage.jobs.get(job.id) is None


async def test_a_new_job_begins_with_what_its_kind_requires(page: Watched, furnished: Furnished) -> None:
    await page.go("/jobs")
    await page.button("New job").click()
    dialog = page.page.get_by_role("dialog")
    await dialog.get_by_label("Kind").fill("mail.send")
    await dialog.get_by_text("What mail.send takes").click()
    await expect(dialog.locator(".code")).to_contain_text("dialect")
    await page.button("Begin with what it requires").click()
    await expect(dialog.get_by_label("Payload")).to_have_value('{\n  "to": ""\n}')
    await dialog.get_by_label("Kind").fill("ledger.close")
    await expect(dialog.get_by_text("What ")).to_have_count(0)


async def test_what_code_hid_is_shown_again_after_a_reset_alone(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    (added,) = await storage.jobs.enqueue_bulk([EnqueueRequest("card.old", {"number": "4929"}, queue="billing")])
    declared = KindDeclaration(kind="card.old", payload_view="hidden")
    for one in (declared, replace(declared, payload_view="redacted")):
        await storage.kinds.declare([one], host_id="h")
    await page.go(f"/jobs/{added.id}")
    await expect(page.page.locator("main")).to_contain_text("The code of this kind hides payloads")
    await expect(page.page.locator("main")).not_to_contain_text("4929")
    await page.page.locator(".facts").get_by_role("link", name="card.old").click()
    await page.button("Reset").click()
    await page.confirm("Reset")
    await expect(page.button("Reset")).to_have_count(0)
    await page.go(f"/jobs/{added.id}")
    await expect(page.page.locator("main")).to_contain_text("4929")
    await storage.jobs.delete(added.id)


async def test_a_waiting_job_is_changed_and_cancelled(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    (added,) = await storage.jobs.enqueue_bulk([EnqueueRequest("ledger.close", {}, queue="billing", delay=900)])
    await page.go(f"/jobs/{added.id}")
    await page.button("Change").click()
    await page.page.get_by_label("Attempts at most").fill("9")
    await page.confirm("Save")
    await until(lambda: changed(storage, added.id, max_attempts=9))
    await expect(page.page.get_by_role("dialog")).to_have_count(0)
    await page.page.keyboard.press("c")
    await page.confirm("Cancel")
    await expect(page.page.locator("main")).to_contain_text("dead")
    await until(lambda: changed(storage, added.id, status="dead", dead_reason="cancelled"))


async def changed(storage: Storage, job_id: str, **fields: object) -> bool:
    detail = await storage.jobs.get(job_id)  # type: ignore[arg-type]
    return detail is not None and all(getattr(detail.row, name) == value for name, value in fields.items())


async def test_all_that_match_are_acted_on_with_their_exact_number(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    await storage.jobs.enqueue_bulk([EnqueueRequest("bulk.one", {"n": n}, queue="billing") for n in range(60)])
    await page.go("/jobs?q=kind:bulk.one")
    await expect(page.page.locator(".list-bar")).to_contain_text("60 jobs")
    await page.button("Cancel").click()
    await page.confirm("Cancel 60 jobs")
    dialog = page.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("60 changed")
    await dialog.get_by_role("button", name="Close").last.click()
    assert await statuses(storage, kinds=("bulk.one",)) == {"dead": 60}
    await page.page.get_by_label("Select all on this page").click()
    await expect(page.page.locator(".list-bar")).to_contain_text("50 selected")
    await page.button("Select all 60 jobs that match").click()
    await page.button("Retry").click()
    await expect(page.page.get_by_role("dialog")).to_contain_text("Retry 60 jobs")
    await page.page.keyboard.press("Escape")
    await page.button("Clear").click()
    await page.page.locator("tbody tr").nth(0).get_by_role("checkbox").click()
    await page.page.locator("tbody tr").nth(2).get_by_role("checkbox").click(modifiers=["Shift"])
    await page.button("Delete").click()
    await page.confirm("Delete 3 jobs")
    await expect(dialog).to_contain_text("3 changed")
    await page.page.keyboard.press("Escape")
    assert await statuses(storage, kinds=("bulk.one",)) == {"dead": 57}


async def test_a_group_of_dead_jobs_is_retried_with_a_rate(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    await page.go("/dead")
    group = page.page.locator(".groups li").filter(has_text="smtp.example.org refused")
    await expect(group.locator(".group-count")).to_have_text("4")
    await group.get_by_role("button", name="Retry group").click()
    chosen = JobFilter(statuses=("dead",), error="smtp.example.org refused")
    retried = {row.id for row in (await storage.jobs.list_jobs(chosen)).items}
    dialog = page.page.get_by_role("dialog")
    await dialog.get_by_label("Jobs per second").fill("0")
    await expect(dialog.get_by_role("alert")).to_contain_text("0.001")
    await dialog.get_by_label("Jobs per second").fill("0.01")
    await expect(dialog).to_contain_text("the last one is due 5m from now")
    await page.confirm("Retry 4 jobs")
    await expect(dialog).to_contain_text("4 changed")
    audit = (await storage.audit.list(limit=1))[0]
    assert (audit.count, audit.actor.surface) == (4, "http")
    later = await storage.jobs.list_jobs(JobFilter(kinds=("mail.send",)), order=JobOrder.FUTURE)
    dues = [row.scheduled_at for row in later.items if row.id in retried]
    assert len(dues) == 3, "the first one is due at once"
    assert {round((after - due).total_seconds()) for due, after in pairwise(dues)} == {100}


async def test_a_queue_is_paused_resumed_and_tuned(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    await page.go("/queues/reports")
    await page.button("Pause").click()
    await page.confirm("Pause")
    await expect(page.page.locator("main h1")).to_contain_text("paused")
    stored = await storage.queues.get("reports")
    assert stored is not None
    assert (stored.paused, stored.pause_signal) == (True, False)
    await page.button("Resume").click()
    await expect(page.page.locator("main h1")).not_to_contain_text("paused")
    slots = page.page.get_by_label("Slots at most")
    await slots.fill("3")
    await storage.queues.pause("reports")  # something arrives while one is typing
    await expect(page.page.locator("main h1")).to_contain_text("paused")
    await expect(slots).to_have_value("3")
    await storage.queues.change("reports", QueueChange(max_workers=7))  # and somebody else is faster
    page.expected = ("412 (Precondition Failed)",)
    await page.button("Save 1 change").click()
    await expect(page.page.get_by_label("Settings")).to_contain_text("Somebody changed the settings")
    stored = await storage.queues.get("reports")
    assert stored is not None
    assert stored.max_workers == 7
    await page.button("Save 1 change").click()
    await expect(page.button("Save 1 change")).to_have_count(0)
    stored = await storage.queues.get("reports")
    assert stored is not None
    assert (stored.max_workers, stored.updated_by) == (3, "local")


async def test_schedules_are_made_with_a_preview_triggered_and_removed(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    await page.go("/schedules")
    await page.button("New schedule").click()
    dialog = page.page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("berlin")
    await dialog.get_by_label("Kind").fill("ledger.close")
    await dialog.get_by_label("Zone").fill("Europe/Berlin")
    page.expected = ("400 (Bad Request)",)  # what Chromium says of an answer that refuses
    await dialog.get_by_label("Expression").fill("61 2 * * *")
    await expect(dialog.get_by_role("alert")).to_contain_text("61")
    await dialog.get_by_label("Expression").fill("30 2 * * *")
    await expect(dialog.locator(".fires li").first).to_contain_text("02:30:00")
    await page.confirm("Save")
    await expect(page.page.locator("main h1")).to_contain_text("berlin")
    await page.button("Trigger").click()
    await page.confirm("Add one job now")
    await expect(page.page.locator(".toasts")).to_contain_text("Added job")
    schedule = await storage.schedules.get("berlin")
    assert schedule is not None
    assert schedule.settings.zone == "Europe/Berlin"
    await page.button("Disable").click()
    await expect(page.page.locator("main h1")).to_contain_text("disabled")
    await page.button("Remove").click()
    await page.confirm("Remove")
    await expect(page.page.locator("main h1")).to_have_text("Schedules")
    assert await storage.schedules.get("berlin") is None


async def test_a_limit_is_made_changed_and_drained(page: Watched, furnished: Furnished) -> None:
    storage, _ = furnished
    await page.go("/limits")
    await page.page.locator("tr", has_text="smtp").get_by_role("button", name="Change").click()
    await page.page.get_by_label("Capacity").fill("80")
    await page.confirm("Save")
    await expect(page.page.locator("tr", has_text="smtp")).to_contain_text("of 80")
    await page.page.locator("tr", has_text="smtp").get_by_role("button", name="Drain").click()
    await page.page.get_by_label("And shut it for, s").fill("600")
    await page.confirm("Drain")
    await expect(page.page.locator("tr", has_text="smtp")).to_contain_text("shut for")
    limit = await storage.rate_limits.get("smtp")
    assert limit is not None
    assert limit.capacity == 80
    assert limit.blocked_until is not None


async def test_two_tabs_stay_live_and_rows_do_not_jump(browser: Browser, url: str, furnished: Furnished) -> None:
    storage, _ = furnished
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    tabs = [await open_page(context, url) for _ in range(2)]
    for tab in tabs:
        await tab.go("/jobs?q=kind:live.one")
        await expect(tab.page.locator(".live")).to_have_text("Live")
    (first,) = await storage.jobs.enqueue_bulk([EnqueueRequest("live.one", {}, queue="billing", delay=600)])
    await storage.events.flush()  # which comes by itself within two seconds
    for tab in tabs:
        await expect(tab.page.locator("tbody tr")).to_have_count(1)
    await storage.jobs.enqueue_bulk([EnqueueRequest("live.one", {}, queue="billing", delay=600)])
    await storage.events.flush()
    for tab in tabs:
        await expect(tab.button("1 new")).to_be_visible()
        await expect(tab.page.locator("tbody tr")).to_have_count(1)
    await storage.jobs.cancel(first.id)
    await storage.events.flush()
    for tab in tabs:
        await expect(tab.page.locator("tbody tr")).to_contain_text("dead")
    await tabs[0].button("1 new").click()
    await expect(tabs[0].page.locator("tbody tr")).to_have_count(2)
    await context.close()
    for tab in tabs:
        tab.assert_quiet()


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


async def test_what_is_done_in_the_drawer_leaves_the_list_as_it_was(page: Watched, furnished: Furnished) -> None:
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


async def test_what_a_worker_runs_opens_beside_it(page: Watched) -> None:
    await page.go("/workers")
    await page.page.get_by_text("1 running job").click()
    running = page.page.locator(".running li")
    await expect(running).to_contain_text("image.resize")
    await running.get_by_role("link").click()
    await expect(page.page.locator(".drawer")).to_contain_text("3 of 8 · tile 3")
    await expect(page.page.locator("main h1")).to_have_text("Workers")


async def test_a_long_payload_is_shown_in_part_and_downloaded_whole(page: Watched, furnished: Furnished) -> None:
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
