"""What the hot path costs on a server: each statement finds its rows through an index and walks past few others, and
heartbeats touch no index.

The plans are those that the server ran, told by its own module auto_explain, the ones inside of functions too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import psycopg
import pytest
from psycopg.errors import Diagnostic

from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.ids import new_id
from forge_jobs.storage.postgres.book import load
from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.types.process import Claimed, ProcessInfo, ProcessState
from forge_jobs.testing.cluster import until
from forge_jobs.testing.postgres import Server

JOBS, BEATS = 50, 20
LIMIT: Final = 10
NOW: Final = 1_800_000_000_000_000
FILL: Final = f"""
ALTER TABLE forge.jobs SET (autovacuum_enabled = off);
INSERT INTO forge.jobs (id, queue, kind, payload, priority, max_attempts, enqueued_at, status, ready, alone,
                        scheduled_at, expires_at, completed_at, process_id, host_id, heartbeat_at, started_at, fence)
SELECT lpad(n::text, 8, '0'), 'queue-' || n % 2, 'kind-' || n % 7, '{{}}', n % 3, 5, {NOW}, state,
  CASE WHEN state = 'pending' THEN (n % 20 < 6)::integer END, (n % 400 = 0)::integer,
  CASE WHEN n % 20 < 6 THEN {NOW} - n ELSE {NOW} + 1000000 + n END, CASE WHEN n % 50 = 1 THEN {NOW} + n END,
  CASE WHEN state = 'done' THEN {NOW} - n END, CASE WHEN state = 'in_progress' THEN 'slot' END,
  CASE WHEN state IN ('done', 'in_progress') THEN 'host-' || n % 5 END,
  CASE WHEN state = 'in_progress' THEN {NOW} - n END, CASE WHEN state <> 'pending' THEN {NOW} - n END, 1
FROM (SELECT n, CASE WHEN n % 20 < 12 THEN 'pending' WHEN n % 20 < 19 THEN 'done' ELSE 'in_progress' END AS state
      FROM generate_series(1, 24000) AS n) AS numbers
"""
"""24 000 jobs, mixed in every page: 7 200 ready, 7 200 of the future, 8 400 finished, 1 200 running."""
FILTERS: Final = (
    *("ids", "queues", "kinds", "statuses", "dead_reasons", "key"),
    *("tag", "search", "error", "since", "until", "process", "parent", "schedule", "before"),
)
TELL_PLANS: Final = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_nested_statements = on;
SET auto_explain.log_analyze = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_format = json;
SET client_min_messages = log;
"""


class Scans(dict[str, int]):
    """The indexes of jobs that were read, each with how many rows it led to; whole tables by the name of the scan."""

    @property
    def walked(self) -> int:
        return sum(self.values())


class Session:
    """A connection as the product has it, which hears the plans of what it ran."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._book = load("forge")
        self._connection = connection
        self._plans: list[dict[str, Any]] = []
        connection.prepare_threshold = 1
        connection.execute(TELL_PLANS)
        connection.add_notice_handler(self._note)

    def run(self, name: str, **params: Any) -> tuple[Scans, list[Any]]:
        """What this statement of the book did to find its jobs, and its rows. What it changed is undone."""
        self._plans.clear()
        with self._connection.transaction(force_rollback=True):
            cursor = self._connection.execute(self._book[name].encode(), {"now": NOW, **params}, prepare=True)
            rows = cursor.fetchall() if cursor.description else []
        assert self._plans, "the server told no plan"
        found = Scans()
        for plan in self._plans:
            for index, rows_read in _scans(plan["Plan"]):
                found[index] = found.get(index, 0) + rows_read
        return found, rows

    def exchange(
        self, *, done: dict[str, int] | None = None, at: int = NOW, kinds: int = 1, **claim: Any
    ) -> tuple[Scans, list[Any]]:
        """The same of a settlement; or of a claim of up to `LIMIT` jobs of so many kinds, and how many it took."""
        asked = {
            "queue": "queue-0",
            "kinds": [f"kind-{n}" for n in range(kinds)],
            "slots": [f"slot-{n}" for n in range(LIMIT)],
            "host": "host-0",
            "alone": False,
            "alone_kinds": [],
            **claim,
        }
        given = {"done": json.dumps(done), "asked": None} if done else {"done": None, "asked": json.dumps([asked])}
        scans, rows = self.run("exchange", **given, grace=0, at=at)
        return scans, rows if done else [len(json.loads(row[2])) for row in rows[1:]]

    def _note(self, told: Diagnostic) -> None:
        message = told.message_primary or ""
        if "plan:" in message:
            self._plans.append(json.loads(message.partition("plan:")[2]))


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Every scan of jobs in a plan, and the rows that it read, those it threw away too."""
    of_jobs = node.get("Relation Name") == "jobs" or node.get("Index Name", "").startswith("jobs_")
    if of_jobs and node["Node Type"].endswith("Scan") and node["Node Type"] != "Bitmap Heap Scan":
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield node.get("Index Name", node["Node Type"]), round(rows * node["Actual Loops"])
    for part in node.get("Plans", ()):
        yield from _scans(part)


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[str]:
    """A database with jobs in every state, as it is once the server has counted them."""
    url = server.new_database()
    asyncio.run(_create(url))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL.encode(), prepare=False)
        connection.execute("VACUUM ANALYZE forge.jobs")
    yield url
    server.drop_database(url)


@pytest.fixture(params=["force_custom_plan", "force_generic_plan"])
def session(filled: str, request: pytest.FixtureRequest) -> Iterator[Session]:
    """With plans for the values at hand, and with the one that the server keeps for all values."""
    with psycopg.connect(filled, autocommit=True) as connection:
        connection.execute(f"SET plan_cache_mode = {request.param}".encode())
        yield Session(connection)


async def _create(url: str) -> None:
    async with open_storage(url):
        pass


@pytest.mark.parametrize("kinds", [1, 3, 6])
def test_a_claim_walks_the_head_of_each_kind_in_the_claim_index(session: Session, kinds: int) -> None:
    scans, counts = session.exchange(kinds=kinds)
    assert counts == [LIMIT]
    assert scans.keys() == {"jobs_future", "jobs_ready", "jobs_alone", "jobs_pkey"}
    assert scans["jobs_future"] == 0, "nothing fell due"
    assert scans["jobs_ready"] <= (kinds + 2) * LIMIT
    assert scans["jobs_alone"] <= kinds
    assert scans["jobs_pkey"] == LIMIT


def test_a_claim_that_is_paid_for_walks_no_further_than_its_tokens_reach(session: Session) -> None:
    gates = [{"paid_kind": f"kind-{n}", "scope": "scope", "cost": 1, "tokens": 3} for n in range(3)]
    scans, counts = session.exchange(kinds=3, gates=gates)
    assert counts == [3]
    assert scans.keys() == {"jobs_future", "jobs_ready", "jobs_alone", "jobs_pkey"}
    assert scans["jobs_ready"] <= 5 * 3
    assert scans["jobs_pkey"] == 3


def test_a_job_that_runs_alone_is_found_by_its_index(session: Session) -> None:
    scans, counts = session.exchange(kinds=3, alone=True, alone_kinds=["kind-1"])
    assert counts == [1]
    assert scans.keys() == {"jobs_future", "jobs_ready", "jobs_alone", "jobs_pkey"}
    assert scans.walked <= 2 * 3 + LIMIT


def test_what_fell_due_is_found_in_bounded_portions(session: Session) -> None:
    """However many fell due at once: of each kind and priority as many as are claimed, and 500 more."""
    scans, counts = session.exchange(kinds=3, at=NOW + 10_000_000)
    assert counts == [LIMIT]
    assert scans.keys() == {"jobs_future", "jobs_bands", "jobs_ready", "jobs_alone", "jobs_pkey"}
    assert scans["jobs_future"] == 1 + 500
    bands, served = 7 * 3, 3 * 3
    assert scans["jobs_bands"] <= bands + served * LIMIT
    assert scans["jobs_pkey"] <= 500 + served * LIMIT + LIMIT


def test_jobs_are_settled_by_their_ids_alone(session: Session) -> None:
    scans, [(_, unsettled, *_)] = session.exchange(done={f"{n:08}": 1 for n in (19, 39, 59, 60)})
    assert json.loads(unsettled) == {"00000060": True}
    assert scans == {"jobs_pkey": 5}


EXPLAINED: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "count_ahead": ({"kinds": json.dumps([f"kind-{n}" for n in range(7)]), "limit": 50}, 7 * 50),
    "heads_ahead": ({"kinds": json.dumps([f"kind-{n}" for n in range(7)]), "limit": 5}, 7 * 5),
    "alone_ahead": ({"kinds": json.dumps(["kind-1"]), "limit": 50}, 200),
    "due_ahead": ({"kinds": json.dumps(["kind-1"]), "limit": 50}, 50),
    "kinds_due": ({"limit": 50}, 7 + 1 + 50 + 50),
    "kinds_that_wait": ({}, 3 * 8),
    "running_by_host": ({}, 2_000),
    "oldest_running": ({}, 2_000),
}
"""What explaining asks, and how many rows that may lead to."""


@pytest.mark.parametrize("name", EXPLAINED)
def test_explaining_a_job_walks_no_further_than_its_bounds(session: Session, name: str) -> None:
    more, most = EXPLAINED[name]
    place = {"priority": 2, "scheduled_at": NOW, "id": "99999999"}
    scans, _ = session.run(name, queue="queue-0", **place, **more)
    assert not {"Seq Scan", "Index Scan", "Bitmap Heap Scan"} & scans.keys()
    assert scans.walked <= most, scans


def test_silent_owners_are_looked_for_among_running_jobs_only(session: Session) -> None:
    for stale in (0, 60_000_000):
        scans, rows = session.run("stale_jobs", stale=stale, limit=50)
        assert len(rows) == (50 if stale == 0 else 0)
        assert scans.keys() == {"jobs_running"}
        assert scans.walked < 2_000, "1200 run, and some rows are of claims that were undone"


def test_expired_jobs_are_found_by_when_they_expire(session: Session) -> None:
    scans, rows = session.run("expired_jobs", now=NOW + 10_000, limit=50)
    assert (len(rows), scans) == (50, {"jobs_expiring": 50})
    assert session.run("expired_jobs", limit=50) == ({"jobs_expiring": 0}, [])


def test_old_jobs_are_found_by_when_they_ended(session: Session) -> None:
    scans, rows = session.run("delete_finished", queue="queue-0", status="done", before=NOW, limit=50)
    assert (len(rows), scans) == (50, {"jobs_finished": 50, "jobs_pkey": 50})
    assert session.run("delete_finished", queue="queue-0", status="dead", before=NOW, limit=50)[0].walked == 0


def test_a_heartbeat_finds_its_jobs_by_their_ids_and_its_own_by_their_host(session: Session) -> None:
    claims = json.dumps({f"{n:08}": 1 for n in range(19, 419, 20)})
    assert session.run("beat_jobs", claims=claims)[0] == {"jobs_pkey": 2 * 20}, "once to lock, once to write"
    scans, rows = session.run("running_of_host", host="host-4")
    assert len(rows) == 1_200
    assert scans.keys() == {"jobs_running"}
    assert session.run("running_of_host", host="host-9")[0].walked == 0


def test_a_page_of_jobs_costs_the_same_wherever_it_is(filled: str) -> None:
    """The server may choose: by its fifth run a statement could have a plan that fits no values."""
    none: dict[str, str | None] = dict.fromkeys(FILTERS)
    with psycopg.connect(filled, autocommit=True) as connection:
        session = Session(connection)
        for before in ("~", *(f"{n:08}" for n in range(24_000, 0, -2_000))):
            scans, rows = session.run("list_jobs", **{**none, "before": before, "after": ""}, limit=51)
            assert (len(rows), scans) == (51, {"jobs_pkey": 51})


def updates(database: str) -> tuple[int, int]:
    """How many rows of jobs were updated, and how many of these within their page and no index."""
    with psycopg.connect(database, autocommit=True) as look:
        row = look.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = 'forge' AND relname = 'jobs'"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


async def test_a_heartbeat_touches_no_index(database: str) -> None:
    async with open_storage(database) as storage:
        await storage.jobs.enqueue_bulk([EnqueueRequest("brief", n, queue="default") for n in range(JOBS)])
        host = new_id()
        slots = tuple(f"default-{n}-x" for n in range(JOBS))
        claim = await storage.jobs.claim(ClaimRequest(queue="default", kinds=("brief",), host_id=host, slots=slots))
    await until(lambda: updates(database)[0] == JOBS, within_s=15)
    _, hot_before = updates(database)
    async with open_storage(database) as storage:
        info = ProcessInfo(
            host_id=host,
            label="beater",
            host_name="host",
            pid=1,
            version="0",
            queues=("default",),
            kinds=("brief",),
            slots={},
            running={},
            state=ProcessState.RUNNING,
        )
        heart = storage.processes.open_heart(timedelta(seconds=5))
        claims = [Claimed(job.id, job.fence) for job in claim.jobs]
        for _ in range(BEATS):
            answer = await asyncio.to_thread(heart.beat, info, claims)
            assert not answer.lost
        heart.close()
    await until(lambda: updates(database)[0] == JOBS * (BEATS + 1), within_s=15)
    assert updates(database)[1] - hot_before >= JOBS * BEATS * 0.9, "all but those that found no room in their page"
