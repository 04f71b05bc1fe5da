"""What is done over HTTP is done in the store, and told in the audit with who did it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from forge_jobs import EnqueueRequest
from forge_jobs.ids import JobId
from forge_jobs.storage.protocol import ClaimRequest, Storage
from forge_jobs.storage.types.job import JobFilter

from .stage import HOST_ID, Furnished, caller, furnish, guarded, problem, process

V1 = "/api/v1"


@pytest.fixture
async def made(storage: Storage) -> Furnished:
    return await furnish(storage)


@pytest.fixture
async def admin(storage: Storage, made: Furnished, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with caller(guarded(storage, tmp_path), "admin") as client:
        yield client


async def newest(storage: Storage, action: str) -> Any:
    """The newest act in the audit, which must be this one, of the admin over HTTP."""
    row = (await storage.audit.list(limit=1))[0]
    assert row.action == action
    assert (row.actor.name, row.actor.role, row.actor.surface) == ("admin", "admin", "http")
    assert row.actor.address == "192.0.2.7"
    assert row.actor.request_id
    return row


async def test_a_request_id_is_kept_and_audited(storage: Storage, admin: httpx2.AsyncClient) -> None:
    response = await admin.post(f"{V1}/queues/mail/pause", headers={"X-Request-Id": "my-request-1"})
    assert response.headers["x-request-id"] == "my-request-1"
    assert (await newest(storage, "queue.pause")).actor.request_id == "my-request-1"
    strange = await admin.get(f"{V1}/me", headers={"X-Request-Id": "a b"})
    assert strange.headers["x-request-id"] != "a b"


async def test_enqueue(storage: Storage, admin: httpx2.AsyncClient) -> None:
    response = await admin.post(
        f"{V1}/jobs", json={"kind": "k", "payload": [1], "queue": "q", "delay": 60, "tags": ["a"]}
    )
    job_id = response.json()["id"]
    assert response.headers["location"] == f"{V1}/jobs/{job_id}"
    detail = await storage.jobs.get(job_id)
    assert detail is not None
    assert (detail.row.payload, detail.row.tags, detail.row.status) == ([1], ("a",), "pending")
    row = await newest(storage, "job.enqueue")
    assert (row.target, row.count) == (job_id, 1)
    routed = await admin.post(f"{V1}/jobs", json={"kind": "k"})
    found = await storage.jobs.get(routed.json()["id"])
    assert found is not None
    assert (found.row.queue, found.row.max_attempts) == ("default", 5)


async def test_change_a_waiting_job(storage: Storage, admin: httpx2.AsyncClient, made: Furnished) -> None:
    wanted = {"priority": -5, "run_at": "2031-01-01T00:00:00Z", "max_attempts": 9, "queue": "slow"}
    shown = (await admin.patch(f"{V1}/jobs/{made.job}", json=wanted)).json()
    assert (shown["priority"], shown["max_attempts"], shown["queue"]) == (-5, 9, "slow")
    assert shown["scheduled_at"] == "2031-01-01T00:00:00.000000Z"
    row = await newest(storage, "job.change")
    assert (row.before["priority"], row.after["priority"]) == (0, -5)
    counts = await storage.queues.counts()
    assert (counts["slow"].scheduled, counts["slow"].ready) == (1, 0)
    refused = await admin.patch(f"{V1}/jobs/{made.dead}", json={"priority": 1})
    assert (refused.status_code, problem(refused)["reason"]) == (409, "is_dead")
    for body in ({}, {"priority": None}, {"run_at": None}):
        assert (await admin.patch(f"{V1}/jobs/{made.job}", json=body)).status_code == 400


async def test_a_changed_job_is_claimed_where_and_when_it_says(storage: Storage, admin: httpx2.AsyncClient) -> None:
    later = await storage.jobs.enqueue(EnqueueRequest("k", queue="a", delay=3_600))
    assert (
        await admin.patch(f"{V1}/jobs/{later.id}", json={"run_at": "2020-01-01T00:00:00Z", "queue": "b"})
    ).is_success
    claim = await storage.jobs.claim(ClaimRequest(queue="b", kinds=("k",), host_id=HOST_ID, slots=("b-0-h",)))
    assert [job.id for job in claim.jobs] == [later.id]


async def test_retry_cancel_run_now_and_delete(storage: Storage, admin: httpx2.AsyncClient, made: Furnished) -> None:
    jobs = f"{V1}/jobs"
    again = (await admin.post(f"{jobs}/{made.dead}/retry")).json()
    assert again == {"id": made.dead, "changed": True, "outcome": "retried", "held_by": None}
    await newest(storage, "job.retry")
    refused = (await admin.post(f"{jobs}/{made.dead}/retry", json={})).json()
    assert (refused["changed"], refused["outcome"]) == (False, "is_pending")
    assert (await admin.post(f"{jobs}/{made.job}/run-now")).json()["outcome"] == "due"
    await newest(storage, "job.run_now")
    assert (await admin.post(f"{jobs}/{made.job}/cancel")).json()["outcome"] == "cancelled"
    await newest(storage, "job.cancel")
    assert (await admin.post(f"{jobs}/{made.job}/cancel")).json()["outcome"] == "already_finished"
    assert (await admin.delete(f"{jobs}/{made.job}")).json() == {"outcome": "deleted"}
    await newest(storage, "job.delete")
    assert (await admin.delete(f"{jobs}/{made.job}")).status_code == 404


async def test_a_retry_names_who_holds_the_key(storage: Storage, admin: httpx2.AsyncClient, made: Furnished) -> None:
    await storage.jobs.cancel(JobId(made.other))
    holder = await storage.jobs.enqueue(EnqueueRequest("build", queue="other", dedupe_key="k"))
    answer = (await admin.post(f"{V1}/jobs/{made.other}/retry")).json()
    assert (answer["changed"], answer["outcome"], answer["held_by"]) == (False, "slot_held", holder.id)


async def test_queue_settings(storage: Storage, admin: httpx2.AsyncClient) -> None:
    path = f"{V1}/queues/mail"
    body = {"max_workers": 99_999, "retain_done_days": None, "backoff": {"base_s": 9}, "cool_down": False}
    shown = (await admin.patch(path, json=body)).json()
    assert (shown["max_workers"], shown["clamped"]) == (10_000, ["max_workers"])
    stored = await storage.queues.get("mail")
    assert stored is not None
    assert (stored.max_workers, stored.retain_done_days, stored.backoff.base_s, stored.cool_down) == (
        10_000,
        None,
        9,
        False,
    )
    row = await newest(storage, "queue.set")
    assert (row.before["max_workers"], row.after["max_workers"]) == (None, 10_000)
    assert (await admin.patch(f"{V1}/queues/none", json={"max_workers": 1})).status_code == 404
    assert problem(await admin.patch(path, json={"max_workers": True}))["field"] == "max_workers"
    assert (await admin.patch(path, json={})).status_code == 400


EDITS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "queues/mail": ("patch", {"max_workers": 2}, {"max_workers": 3}),
    "schedules/nightly": ("patch", {"expr": "0 4 * * *"}, {"expr": "0 5 * * *"}),
    "rate-limits/gh": ("put", {"capacity": 7.0, "refill_per_s": 1.0}, {"capacity": 8.0, "refill_per_s": 1.0}),
}
"""What can be edited, and two edits of it."""


@pytest.mark.parametrize("what", EDITS)
async def test_two_people_do_not_overwrite_each_other(admin: httpx2.AsyncClient, what: str) -> None:
    method, first, second = EDITS[what]
    path = f"{V1}/{what}"
    seen = await admin.get(path)
    tag = seen.json()["etag"]
    assert seen.headers["etag"] == tag
    assert [one["etag"] for one in (await admin.get(path.rpartition("/")[0])).json()["items"]].count(tag) >= 1
    mine = await admin.request(method, path, json=first, headers={"If-Match": tag})
    assert mine.is_success and mine.headers["etag"] == mine.json()["etag"] != tag
    late = await admin.request(method, path, json=second, headers={"If-Match": tag})
    refused = problem(late)
    assert (late.status_code, refused["code"], late.headers["etag"]) == (
        412,
        "precondition_failed",
        mine.json()["etag"],
    )
    assert refused["current"].items() >= {**first, "etag": mine.json()["etag"]}.items()
    again = await admin.request(method, path, json=second, headers={"If-Match": refused["current"]["etag"]})
    assert again.is_success and again.json().items() >= second.items()
    assert (await admin.request(method, path, json=first, headers={"If-Match": "*"})).is_success


@pytest.mark.parametrize("what", EDITS)
async def test_of_edits_at_the_same_time_one_is_done(admin: httpx2.AsyncClient, what: str) -> None:
    method, first, _ = EDITS[what]
    field, base = next(iter(first.items()))
    values = [f"{n} 4 * * *" for n in range(8)] if isinstance(base, str) else [base + n for n in range(1, 9)]
    tag = (await admin.get(f"{V1}/{what}")).json()["etag"]
    answers = await asyncio.gather(
        *(
            admin.request(method, f"{V1}/{what}", json={**first, field: value}, headers={"If-Match": tag})
            for value in values
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    done = next(answer for answer in answers if answer.is_success).json()
    assert (await admin.get(f"{V1}/{what}")).json()[field] == done[field]


async def test_what_workers_do_is_no_edit(storage: Storage, admin: httpx2.AsyncClient) -> None:
    tags = {what: (await admin.get(f"{V1}/{what}")).json()["etag"] for what in EDITS}
    await storage.rate_limits.acquire("gh", 3)
    await admin.post(f"{V1}/queues/mail/pause")
    assert {what: (await admin.get(f"{V1}/{what}")).json()["etag"] for what in EDITS} == tags


async def test_a_limit_that_is_not_there_is_not_as_somebody_saw_it(storage: Storage, admin: httpx2.AsyncClient) -> None:
    body = {"capacity": 7.0, "refill_per_s": 1.0}
    for tag in ('"0123456789abcdef"', "*"):
        refused = await admin.put(f"{V1}/rate-limits/none", json=body, headers={"If-Match": tag})
        assert (refused.status_code, problem(refused)["code"]) == (412, "precondition_failed")
    assert await storage.rate_limits.get("none") is None
    assert (await admin.get(f"{V1}/rate-limits/none")).status_code == 404


async def test_pause_resume_add_and_delete_a_queue(storage: Storage, admin: httpx2.AsyncClient) -> None:
    paused = (await admin.post(f"{V1}/queues/mail/pause", json={"signal": False})).json()
    assert (paused["paused"], paused["pause_signal"], paused["changed"]) == (True, False, True)
    assert (await admin.post(f"{V1}/queues/mail/resume")).json()["paused"] is False
    await newest(storage, "queue.resume")
    added = await admin.post(f"{V1}/queues", json={"name": "fresh", "max_workers": 2})
    assert (added.status_code, added.json()["max_workers"]) == (201, 2)
    await newest(storage, "queue.add")
    assert problem(await admin.post(f"{V1}/queues", json={"name": "fresh"}))["code"] == "conflict"
    assert (await admin.delete(f"{V1}/queues/fresh")).status_code == 204
    await newest(storage, "queue.delete")
    in_use = await admin.delete(f"{V1}/queues/mail")
    assert (in_use.status_code, problem(in_use)["code"]) == (409, "queue_in_use")


async def test_clean_up(storage: Storage, admin: httpx2.AsyncClient) -> None:
    report = (await admin.post(f"{V1}/maintenance/cleanup", json={"dead_older_days": 0, "queue": "mail"})).json()
    assert (report["dead"], report["done"]) == (1, 0)
    done = await newest(storage, "store.cleanup")
    assert (done.outcome, done.count, done.target, done.after["queue"]) == ("done", 1, "mail", "mail")
    assert done.after["removed"] == report
    begun = (await storage.audit.list(limit=2))[1]
    assert (begun.action, begun.outcome, begun.after["dead_older_days"]) == ("store.cleanup", "begun", 0)
    refused = problem(await admin.post(f"{V1}/maintenance/cleanup", json={"done_older_days": -1}))
    assert (refused["field"], refused["reason"]) == ("done_older_days", "out_of_range")


async def test_schedules(storage: Storage, admin: httpx2.AsyncClient) -> None:
    path = f"{V1}/schedules"
    body = {"name": "poll", "kind": "fetch", "expr": "*/5 * * * *", "payload": {"feed": 7}, "skip_if_running": True}
    added = await admin.post(path, json=body)
    assert (added.status_code, len(added.json()["next_fires"])) == (201, 10)
    await newest(storage, "schedule.add")
    assert problem(await admin.post(path, json=body))["reason"] == "exists"
    assert problem(await admin.post(path, json={**body, "name": "x", "expr": "61 * * * *"}))["field"] == "expr"
    changed = (await admin.patch(f"{path}/poll", json={"zone": "Europe/Berlin"})).json()
    assert changed["zone"] == "Europe/Berlin" and changed["edited"]["zone"]["by"] == "admin"
    first = (await admin.post(f"{path}/poll/trigger")).json()
    again = (await admin.post(f"{path}/poll/trigger")).json()
    assert (first["outcome"], again["outcome"], again["id"]) == ("enqueued", "deduped", first["id"])
    assert (await admin.post(f"{path}/poll/trigger", json={"force": True})).json()["outcome"] == "enqueued"
    await newest(storage, "schedule.trigger")
    assert (await admin.get(f"{V1}/jobs?schedule=poll")).json()["total"] == 2
    assert (await admin.post(f"{path}/poll/disable")).json()["state"] == "disabled"
    assert (await admin.post(f"{path}/poll/enable")).json()["state"] == "active"
    assert (await admin.delete(f"{path}/poll")).status_code == 204
    assert (await admin.get(f"{path}/poll")).status_code == 404


async def test_rate_limits(storage: Storage, admin: httpx2.AsyncClient) -> None:
    path = f"{V1}/rate-limits"
    assert (await admin.put(f"{path}/api", json={"capacity": 5, "refill_per_s": 0.5})).json()["tokens"] == 5
    assert (await admin.put(f"{path}/api", json={"capacity": 3, "refill_per_s": 0.5})).json()["capacity"] == 3
    row = await newest(storage, "limit.set")
    assert (row.before, row.after) == ({"capacity": 5, "refill_per_s": 0.5}, {"capacity": 3, "refill_per_s": 0.5})
    assert [one.action for one in await storage.audit.list(limit=10)].count("limit.add") == 1
    shut = (await admin.post(f"{path}/api/drain", json={"retry_after": 60})).json()
    assert shut["tokens"] < 1 and shut["blocked_until"]
    await newest(storage, "limit.drain")
    assert (await admin.post(f"{path}/none/drain")).status_code == 404
    assert problem(await admin.put(f"{path}/api", json={"capacity": 0, "refill_per_s": 1}))["field"] == "capacity"


async def test_a_worker_is_asked(storage: Storage, admin: httpx2.AsyncClient) -> None:
    assert (await admin.post(f"{V1}/workers/{HOST_ID}/quiet")).json() == {"host_id": HOST_ID, "wish": "quiet"}
    await newest(storage, "worker.quiet")
    heart = storage.processes.open_heart(timedelta(seconds=5))
    try:
        assert heart.beat(process(), ()).wish == "quiet"
        await admin.post(f"{V1}/workers/{HOST_ID}/resume")
        assert heart.beat(process(), ()).wish is None
        await admin.post(f"{V1}/workers/{HOST_ID}/stop")
        assert heart.beat(process(), ()).wish == "stop"
    finally:
        heart.close()
    assert (await admin.post(f"{V1}/workers/none/stop")).status_code == 404


async def finished(admin: httpx2.AsyncClient, response: httpx2.Response) -> dict[str, Any]:
    """What became of an operation."""
    assert response.status_code == 202
    for _ in range(1_000):
        found: dict[str, Any] = (await admin.get(response.headers["location"])).json()
        if found["state"] != "running":
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it does not end")


async def test_an_act_on_many_jobs(storage: Storage, admin: httpx2.AsyncClient, made: Furnished) -> None:
    await storage.jobs.enqueue_bulk([EnqueueRequest("bulk", {"n": n}, queue="many") for n in range(1_200)])
    chosen = {"action": "cancel", "filter": {"queue": ["many", "mail"], "kind": ["bulk", "send"]}}
    preview = (await admin.post(f"{V1}/jobs/actions/preview", json=chosen)).json()
    assert (preview["count"], preview["by_status"]) == (1_202, {"pending": 1_201, "dead": 1})
    assert len(preview["sample"]) == 10
    wrong = await admin.post(f"{V1}/jobs/actions", json={**chosen, "expected_count": 1_000})
    assert (wrong.status_code, problem(wrong)["code"]) == (409, "count_changed")
    done = await finished(admin, await admin.post(f"{V1}/jobs/actions", json={**chosen, "expected_count": 1_195}))
    assert (done["state"], done["changed"], done["skipped"]) == ("done", 1_201, {"already_finished": 1})
    assert await storage.jobs.count(JobFilter(queues=("many",))) == {"dead": 1_200}
    acts = [row for row in await storage.audit.list(limit=10) if row.action == "jobs.cancel"]
    assert sum(row.count for row in acts) == 1_201 and {row.actor.name for row in acts} == {"admin"}


async def test_everything_must_be_meant(storage: Storage, admin: httpx2.AsyncClient) -> None:
    body = {"action": "cancel", "filter": {}, "expected_count": 3}
    assert problem(await admin.post(f"{V1}/jobs/actions", json=body))["field"] == "all"
    done = await finished(admin, await admin.post(f"{V1}/jobs/actions", json={**body, "all": True}))
    assert done["changed"] == 2
    for neither in ({"action": "cancel", "expected_count": 0}, {**body, "ids": []}):
        assert (await admin.post(f"{V1}/jobs/actions", json=neither)).status_code == 400


async def test_ids_that_are_not_there_are_counted(admin: httpx2.AsyncClient, made: Furnished) -> None:
    ids = [made.job, "01JH3V7M8Q2X4N5P6R7S8T9VWX", "nonsense"]
    body = {"action": "delete", "ids": ids, "expected_count": 3}
    done = await finished(admin, await admin.post(f"{V1}/jobs/actions", json=body))
    assert (done["changed"], done["skipped"]) == (1, {"not_found": 2})


async def test_of_two_dead_jobs_of_one_key_one_is_retried(storage: Storage, admin: httpx2.AsyncClient) -> None:
    for _ in range(2):
        job = await storage.jobs.enqueue(EnqueueRequest("twin", queue="twins", dedupe_key="twin"))
        await storage.jobs.cancel(job.id)
    body = {"action": "retry", "filter": {"queue": ["twins"]}, "expected_count": 2}
    done = await finished(admin, await admin.post(f"{V1}/jobs/actions", json=body))
    assert (done["changed"], done["skipped"]) == (1, {"slot_held": 1})


async def test_the_audit_is_paged(admin: httpx2.AsyncClient) -> None:
    for _ in range(5):
        await admin.post(f"{V1}/queues/mail/pause")
    seen, cursor = [], None
    while True:
        query: dict[str, Any] = {"limit": 2, "action": "queue.pause", **({"cursor": cursor} if cursor else {})}
        page = (await admin.get(f"{V1}/audit", params=query)).json()
        assert page["total"] == 5
        seen += [one["request_id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 5
    assert problem(await admin.get(f"{V1}/audit?cursor=x"))["reason"] == "invalid_cursor"
