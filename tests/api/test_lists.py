"""Lists: each row once, whatever happens meanwhile; and no slower for a million rows."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from forge_jobs import EnqueueRequest
from forge_jobs.api import create_app
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import ClaimRequest, Storage
from forge_jobs.storage.types.finalize import Dead, Done, ErrorText
from forge_jobs.storage.types.job import ErrorKind

from .stage import HOST_ID, local, problem

V1 = "/api/v1"


async def walk(client: httpx2.AsyncClient, path: str, *, between: Any = None, **query: Any) -> list[dict[str, Any]]:
    """All items of a list, page after page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = (await client.get(path, params={**query, **({"cursor": cursor} if cursor else {})})).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
        if between is not None:
            await between()


@pytest.fixture
async def client(storage: Storage) -> Any:
    async with local(create_app(storage)) as opened:
        yield opened


async def run(storage: Storage, queue: str, count: int) -> None:
    """Claim and finish jobs."""
    slots = tuple(f"{queue}-{n}-h" for n in range(count))
    claim = await storage.jobs.claim(ClaimRequest(queue=queue, kinds=("k",), host_id=HOST_ID, slots=slots))
    assert len(claim.jobs) == count
    for job in claim.jobs:
        await storage.jobs.finalize(job.id, job.fence, Done())


async def test_a_walk_yields_each_row_once_while_rows_are_added(storage: Storage, client: httpx2.AsyncClient) -> None:
    before = await storage.jobs.enqueue_bulk([EnqueueRequest("k", queue=f"q{n % 3}") for n in range(45)])

    async def add() -> None:
        await storage.jobs.enqueue(EnqueueRequest("k", queue="q0"))

    found = [job["id"] for job in await walk(client, f"{V1}/jobs", between=add, limit=7)]
    assert found == sorted((one.id for one in before), reverse=True)


async def test_orders_of_lists(storage: Storage, client: httpx2.AsyncClient) -> None:
    for delay in (300, 100, 200):
        await storage.jobs.enqueue(EnqueueRequest("k", queue="later", delay=delay))
    await storage.jobs.enqueue_bulk([EnqueueRequest("k", queue=f"q{n % 2}") for n in range(10)])
    for n in range(5):
        await run(storage, f"q{n % 2}", 1)
    dead = await storage.jobs.enqueue(EnqueueRequest("k", queue="q0"))
    await storage.jobs.cancel(dead.id)
    due = await walk(client, f"{V1}/jobs", order="scheduled", limit=3)
    keys = [(job["scheduled_at"], job["id"]) for job in due]
    assert len(due) == 8 and keys == sorted(keys) and due[-1]["queue"] == "later"
    ended = await walk(client, f"{V1}/jobs", order="completed", limit=2)
    keys = [(job["completed_at"], job["id"]) for job in ended]
    assert len(ended) == 6 and keys == sorted(keys, reverse=True) and ended[0]["id"] == dead.id
    some = await walk(client, f"{V1}/jobs", order="completed", limit=2, status="done", queue="q1")
    assert {(job["status"], job["queue"]) for job in some} == {("done", "q1")} and len(some) == 2
    assert await walk(client, f"{V1}/jobs", order="completed", status="pending") == []


async def test_totals_are_true(storage: Storage, client: httpx2.AsyncClient) -> None:
    await storage.jobs.enqueue_bulk([EnqueueRequest("k" if n % 2 else "l", queue=f"q{n % 3}") for n in range(30)])
    await storage.jobs.enqueue(EnqueueRequest("k", queue="q0", delay=60))
    for query, total in (("", 31), ("queue=q0", 11), ("queue=q0&queue=q1", 21), ("kind=l&queue=q0", 5),
                         ("status=pending", 31), ("status=dead", 0), ("status=pending&queue=q0", 11)):  # fmt: skip
        assert (await client.get(f"{V1}/jobs?{query}&limit=1")).json()["total"] == total, query


async def test_a_cursor_belongs_to_its_list(storage: Storage, client: httpx2.AsyncClient) -> None:
    await storage.jobs.enqueue_bulk([EnqueueRequest("k", queue="q") for _ in range(3)])
    cursor = (await client.get(f"{V1}/jobs?limit=1&queue=q")).json()["next_cursor"]
    assert (await client.get(f"{V1}/jobs?limit=1&queue=q&cursor={cursor}")).status_code == 200
    for other in ("queue=r", "queue=q&status=pending", "queue=q&order=scheduled"):
        refused = problem(await client.get(f"{V1}/jobs?limit=1&{other}&cursor={cursor}"))
        assert refused["reason"] == "invalid_cursor"


async def test_jobs_by_parent_process_and_schedule(storage: Storage, client: httpx2.AsyncClient) -> None:
    parent = await storage.jobs.enqueue(EnqueueRequest("k", queue="q"))
    child = await storage.jobs.enqueue(EnqueueRequest("l", queue="q"), parent_id=parent.id)
    made = await storage.jobs.enqueue(EnqueueRequest("l", queue="q", trace={"schedule": "s.1", "fire_at": "x"}))
    await storage.jobs.enqueue(EnqueueRequest("l", queue="q", trace={"note": '"schedule":"s.1"'}))
    await storage.jobs.claim(ClaimRequest(queue="q", kinds=("k",), host_id=HOST_ID, slots=("q-0-h",)))
    for query, id in ((f"parent={parent.id}", child.id), (f"process={HOST_ID}", parent.id),
                      ("process=q-0-h", parent.id), ("schedule=s.1", made.id)):  # fmt: skip
        assert [job["id"] for job in (await client.get(f"{V1}/jobs?{query}")).json()["items"]] == [id], query
    shown = (await client.get(f"{V1}/jobs/{parent.id}")).json()
    assert [one["id"] for one in shown["children"]] == [child.id] and shown["children_total"] == 1


async def test_a_long_payload_is_cut_where_it_is_shown_and_whole_as_a_file(
    storage: Storage, client: httpx2.AsyncClient
) -> None:
    payload = {"text": "ä" * 10_000, "password": "hunter2", "page": "</script><script>alert(1)</script>", "n": 10**30}
    added = await storage.jobs.enqueue(EnqueueRequest("k", payload, queue="q"))
    shown = (await client.get(f"{V1}/jobs/{added.id}")).json()
    assert not shown["payload_cut"]
    assert json.loads(shown["payload"]) == {**payload, "password": "[redacted]"}
    added = await storage.jobs.enqueue(EnqueueRequest("k", {**payload, "more": "m" * 100_000}, queue="q"))
    shown = (await client.get(f"{V1}/jobs/{added.id}")).json()
    assert (shown["payload_cut"], len(shown["payload"])) == (True, 64 * 1024)
    file = await client.get(f"{V1}/jobs/{added.id}/payload")
    assert file.json() == {**payload, "more": "m" * 100_000, "password": "[redacted]"}
    assert file.headers["content-type"] == "application/json"
    assert file.headers["content-disposition"] == f'attachment; filename="job-{added.id}.json"'
    assert file.headers["x-content-type-options"] == "nosniff"
    assert file.headers["content-security-policy"].endswith("; sandbox")
    assert "script-src" not in file.headers["content-security-policy"]
    assert (await client.get(f"{V1}/jobs/{HOST_ID}/payload")).status_code == 404


async def test_dead_jobs_are_grouped_by_how_they_ended(storage: Storage, client: httpx2.AsyncClient) -> None:
    for queue, error in (("a", "no user 17"), ("b", "no user 4711"), ("a", "timeout of 'mail'"), ("a", "other")):
        await storage.jobs.enqueue(EnqueueRequest("k", queue=queue))
        claim = await storage.jobs.claim(ClaimRequest(queue=queue, kinds=("k",), host_id=HOST_ID, slots=("s",)))
        await storage.jobs.finalize(claim.jobs[0].id, claim.jobs[0].fence, Dead(ErrorText(error, ErrorKind.FAILED)))
    groups = (await client.get(f"{V1}/jobs/groups")).json()["items"]
    assert (groups[0]["count"], groups[0]["queues"]) == (2, ["a", "b"])
    assert len(groups) == 3 and len(groups[0]["ids"]) == 2 and groups[0]["sample"] == "no user 4711"
    kinds = (await client.get(f"{V1}/kinds?queue=a")).json()["items"]
    assert [(one["kind"], one["dead"], one["waiting"], one["served"]) for one in kinds] == [("k", 3, 0, False)]
    assert kinds[0]["queues"] == [{"queue": "a", "waiting": 0, "in_progress": 0, "dead": 3, "served": False}]


async def test_the_doctor_is_asked_over_http_too(storage: Storage, client: httpx2.AsyncClient) -> None:
    await storage.jobs.enqueue(EnqueueRequest("k", queue="lost"))
    found = (await client.get(f"{V1}/doctor")).json()
    (unserved,) = [check for check in found["checks"] if check["name"] == "unserved"]
    assert unserved == {
        "name": "unserved", "verdict": "warn", "queue": "lost", "kind": None,
        "detail": "queue lost has no live worker; 1 job waits", "remedy": "start a worker with --queues lost",
    }  # fmt: skip
    assert {"store", "schema", "durability", "disk", "size", "workers", "schedules"} <= {
        check["name"] for check in found["checks"]
    }
    assert found["ok"] is all(check["verdict"] != "fail" for check in found["checks"])
    await storage.jobs.enqueue(EnqueueRequest("k", queue="other"))
    assert (await client.get(f"{V1}/doctor")).json() == found  # as it was: not every page examines the store


@pytest.mark.slow
async def test_a_million_jobs_are_no_slower(tmp_path: Path) -> None:
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as storage:
        await storage.jobs.enqueue_bulk([EnqueueRequest("k", queue=f"q{n}") for n in range(4)])
    fill(tmp_path / "jobs.db", 1_000_000)
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as storage:
        for _ in range(2):  # what is new is counted from the second time on
            await storage.queues.fold_counts()
        async with local(create_app(storage)) as client:
            for path in ("jobs", "jobs?status=dead&order=completed", "jobs?order=completed", "jobs?order=scheduled",
                         "jobs?queue=q1&status=done", "overview", "queues"):  # fmt: skip
                await client.get(f"{V1}/{path}")
                began = time.perf_counter()
                response = await client.get(f"{V1}/{path}")
                took_ms = 1000 * (time.perf_counter() - began)
                assert response.status_code == 200
                print(f"{path}: {took_ms:.0f} ms")
                assert took_ms <= 300, path


def fill(database: Path, count: int) -> None:
    """Finished jobs, in the columns that the store itself would write."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO forge_jobs (id, queue, kind, payload, status, priority, max_attempts, enqueued_at,"
            " scheduled_at, completed_at, dead_reason) SELECT printf('0%025d', i), 'q' || (i % 4), 'k', '{}',"
            " CASE WHEN i % 10 = 0 THEN 'dead' ELSE 'done' END, 0, 5, 1700000000000000 + i, 1700000000000000 + i,"
            " 1700000000000000 + i, CASE WHEN i % 10 = 0 THEN 'exhausted' END FROM n",
            (count,),
        )
        connection.commit()
        connection.execute("ANALYZE")
