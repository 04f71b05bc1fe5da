"""Every page of the API and the numbers for Prometheus beside very many jobs, most of which wait."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx2
import psycopg
import pytest

from forge_jobs.storage.open import open_storage

from .live import Live

V1: Final = "/api/v1"
COLUMNS: Final = (
    "id, queue, kind, payload, status, ready, priority, max_attempts, attempts, enqueued_at, scheduled_at,"
    " completed_at, dead_reason, last_error, tags"
)
VALUES: Final = """
  {id}, 'q' || (i % 4), 'kind-' || (i % 50), '{{"user": ' || i || '}}',
  CASE WHEN i % 10 < 5 THEN 'pending' WHEN i % 10 = 5 THEN 'failed' WHEN i % 10 < 9 THEN 'done' ELSE 'dead' END,
  CASE WHEN i % 10 < 4 THEN 1 WHEN i % 10 < 6 THEN 0 END,
  i % 3, 5, CASE WHEN i % 10 < 5 THEN 0 ELSE 1 END, {now} - 4000000000 + i,
  {now} + CASE WHEN i % 10 < 4 THEN -3000000000 + i ELSE 3600000000 + i END,
  CASE WHEN i % 10 > 5 THEN {now} - 2000000000 + i END, CASE WHEN i % 10 = 9 THEN 'exhausted' END,
  CASE WHEN i % 10 IN (5, 9) THEN 'no user ' || i || ' in group ' || (i % 700) END,
  CASE WHEN i % 20 = 0 THEN '["nightly"]' END
"""
"""Of ten jobs four are ready, one is due later, one waits for a retry, three are done and one is dead."""
PAGES: Final = (
    "overview",
    "queues",
    "kinds",
    "workers",
    "rate-limits",
    "schedules",
    "jobs",
    "jobs?status=pending",
    "jobs?status=dead&order=completed",
    "jobs?order=completed",
    "jobs?order=scheduled",
    "jobs?queue=q1&status=done",
    "jobs?kind=kind-7",
    "jobs/groups",
    "queues/q1/explain",
    "storage",
    "audit",
)


def fill(url: str, jobs: int) -> None:
    """Rows as the store itself would write them, in four queues and of fifty kinds."""
    now_us = time.time_ns() // 1000
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as connection:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            values = VALUES.format(id="printf('0%025d', i)", now=now_us)
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                f"INSERT INTO forge_jobs ({COLUMNS}) SELECT {values} FROM n",
                (jobs,),
            )
            connection.commit()
            connection.execute("ANALYZE")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    values = VALUES.format(id="'0' || lpad(i::text, 25, '0')", now=now_us)
    with psycopg.connect(url, autocommit=True) as connection:
        rows = f"SELECT {values} FROM generate_series(1::bigint, {jobs}) AS n(i)"
        connection.execute(f"INSERT INTO forge.jobs ({COLUMNS}) {rows}".encode())
        connection.execute("VACUUM ANALYZE forge.jobs")


async def prepared(url: str, jobs: int) -> None:
    """A store that has held so many jobs for longer than since this moment."""
    async with open_storage(url) as storage:
        for queue in range(4):
            await storage.queues.ensure(f"q{queue}")
    fill(url, jobs)
    async with open_storage(url) as storage:
        for _ in range(2):  # what is new is counted from the second time on
            await storage.queues.fold_counts()


def times_ms(client: httpx2.Client, path: str, count: int = 5) -> tuple[float, float]:
    """The first answer, and the median of the later ones."""
    found = []
    for _ in range(1 + count):
        began = time.perf_counter()
        response = client.get(path)
        found.append(1_000 * (time.perf_counter() - began))
        assert response.status_code == 200, (path, response.text)
    return found[0], statistics.median(found[1:])


@pytest.mark.parametrize(
    "jobs", [20_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1_200)])]
)
def test_every_page_answers_within_300_ms_beside_very_many_jobs(url: str, jobs: int) -> None:
    asyncio.run(prepared(url, jobs))
    with Live(url) as server, httpx2.Client(base_url=server.base, headers={"Sec-Fetch-Site": "none"}) as client:
        found = {page: times_ms(client, f"{V1}/{page}") for page in PAGES}
        listed = client.get(f"{V1}/jobs").json()["items"]
        newest = f"jobs/{listed[0]['id']}"
        found |= {page: times_ms(client, f"{V1}/{page}") for page in (newest, f"{newest}/explain")}
        for page, (first, later) in found.items():
            print(f"{jobs} jobs, {page}: first {first:.0f} ms, then {later:.0f} ms")
    slow = {page: later for page, (_, later) in found.items() if later > 300}
    assert not slow, "the first answer of all may wait for the first count"


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("jobs", [5_000_000])
def test_the_numbers_for_prometheus_take_50_ms_beside_very_many_jobs(url: str, jobs: int) -> None:
    asyncio.run(prepared(url, jobs))
    with Live(url) as server, httpx2.Client(base_url=server.base) as client:
        first, later = times_ms(client, "/metrics", 20)
        print(f"{jobs} jobs: first {first:.0f} ms, then {later:.0f} ms")
        assert later <= 50
