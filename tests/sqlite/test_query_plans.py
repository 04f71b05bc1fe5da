"""The statements of the hot path find their rows by the index that was made for them, whatever the table holds."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

from forge_jobs import open_storage
from forge_jobs.storage.sql.book import load_book
from forge_jobs.storage.sqlite.connection import connect

KEY: Final = "PRIMARY KEY"
HOT: Final[Mapping[str, tuple[str, ...]]] = {
    "promote_due": ("forge_jobs_future", KEY),
    "ready_kinds": ("forge_jobs_ready",),
    "ready_heads": ("forge_jobs_ready",),
    "alone_head": ("forge_jobs_alone",),
    "alone_waiting": ("forge_jobs_alone",),
    "take_jobs": (KEY,),
    "next_due_of_queue": ("forge_jobs_future",),
    "next_due": ("forge_jobs_future",),
    "queue_gate": (KEY,),
    "settle_done": (KEY,),
    "lock_job": (KEY,),
    "write_job": (KEY,),
    "keep_progress": (KEY,),
    "last_error_seq": (KEY,),
    "beat_jobs": (KEY,),
    "running_of_host": ("forge_jobs_running",),
    "stale_jobs": ("forge_jobs_running",),
    "expired_jobs": ("forge_jobs_expiring",),
    "delete_finished": ("forge_jobs_finished", KEY),
    "delete_old_events": ("forge_events_at",),
    "next_event": ("forge_events_at",),
    "count_events": ("forge_events_at",),
    "event_latencies": ("forge_events_at",),
    "delete_old_metrics": ("forge_metrics_age", KEY),
    "delete_old_process_metrics": ("forge_metrics_process_age", KEY),
    "metric_series": (KEY,),
    "fold_finished": ("forge_jobs_finished",),
    "delete_events_of_jobs": ("forge_events_job",),
    "log_of_job": (KEY,),
    "log_between": ("forge_job_log_at", KEY),
    "log_sizes": (KEY,),
    "delete_log_of_jobs": (KEY,),
    "fences_of_jobs": (KEY,),
    "delete_old_ticks": ("forge_ticks_at", KEY),
    "list_ticks": (KEY,),
    "delete_lapsed_holds": ("forge_unique_holds_until",),
    "jobs_by_ids": (KEY,),
    "holders_of_keys": ("forge_jobs_dedupe",),
    "key_holder": ("forge_jobs_dedupe",),
    "explain_job": (KEY,),
    "count_ahead": ("forge_jobs_ready",),
    "heads_ahead": ("forge_jobs_ready",),
    "alone_ahead": ("forge_jobs_alone",),
    "due_ahead": ("forge_jobs_future",),
    "kinds_due": ("forge_jobs_ready", "forge_jobs_alone", "forge_jobs_future"),
    "kinds_that_wait": ("forge_jobs_ready", "forge_jobs_alone", "forge_jobs_bands"),
    "running_by_host": ("forge_jobs_running",),
    "oldest_running": ("forge_jobs_running",),
    "last_event_of_job": ("forge_events_job",),
    "canceller_of_job": ("forge_audit_at",),
}
BOOK: Final = load_book(files("forge_jobs.storage.sqlite").joinpath("overlay.sql"))
TABLES: Final = (
    "forge_jobs",
    "forge_events",
    "forge_unique_holds",
    "forge_processes",
    "forge_ticks",
    "forge_metrics",
    "forge_job_log",
    "forge_audit",
    "l",
)


@pytest.fixture(params=["empty", "full of finished jobs", "full of future jobs"])
async def filled(request: pytest.FixtureRequest, database: Path) -> Path:
    """A file whose statistics would lead a planner astray."""
    async with open_storage(f"sqlite:///{database}"):
        pass
    connection = connect(database)
    status, ready = {"empty": ("", None), "full of finished jobs": ("done", None)}.get(request.param, ("pending", 0))
    if status:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO forge_jobs (id, queue, kind, payload, status, ready, priority, max_attempts, enqueued_at,"
            " scheduled_at, completed_at) VALUES (?, 'q', 'k', '{}', ?, ?, 0, 5, 1, 1, ?)",
            [(f"{n:026}", status, ready, 1 if status == "done" else None) for n in range(20_000)],
        )
        connection.execute("COMMIT")
        connection.execute("ANALYZE")
    connection.close()
    return database


@pytest.fixture
def plans(filled: Path) -> Iterator[sqlite3.Connection]:
    connection = connect(filled)
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, name: str) -> list[str]:
    sql = BOOK[name]
    numbered = [int(n) for n in re.findall(r"\?(\d+)", sql)]
    values: dict[str, int] | list[int] = dict.fromkeys(re.findall(r":(\w+)", sql), 1)
    if numbered:
        values = [1] * max(numbered)
    elif isinstance(values, dict):
        values = {word: "[]" if word.endswith("s") else 1 for word in values}  # type: ignore[misc]
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_uses_its_index(plans: sqlite3.Connection, name: str) -> None:
    steps = plan(plans, name)
    for index in HOT[name]:
        assert any(index in step for step in steps), f"{name} does not use {index}: {steps}"
    scans = [step for step in steps if re.match(rf"SCAN ({'|'.join(TABLES)}|j)\b", step) and "INDEX" not in step]
    assert scans == [], f"{name} walks the whole table"


@pytest.mark.parametrize("name", ["ready_heads", "alone_head", "promote_due", "delete_finished", "expired_jobs"])
def test_a_statement_that_takes_the_first_few_does_not_sort_the_rest(plans: sqlite3.Connection, name: str) -> None:
    assert not any("TEMP B-TREE" in step for step in plan(plans, name))


def test_a_heartbeat_touches_no_index(plans: sqlite3.Connection) -> None:
    """Opcodes that write to an index are IdxInsert and IdxDelete; the table itself is an index here, so it is one."""
    opcodes = [
        row[1]
        for row in plans.execute(f"EXPLAIN {BOOK['beat_jobs']}", {"now": 1, "tick": 1, "boot": 1, "claims": "{}"})
    ]
    assert opcodes.count("IdxInsert") <= 2, "the ephemeral list of the UPDATE FROM, and the row"
