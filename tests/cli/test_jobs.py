"""Looking at jobs and mending them."""

from __future__ import annotations

import csv
import getpass
import io
import json
import os
import pwd
from datetime import datetime, timedelta
from typing import Any

import pytest

from forge_jobs import EnqueueRequest, Storage
from forge_jobs.storage.types.event import AuditRow
from forge_jobs.storage.types.finalize import Dead, Done, ErrorText, Failed
from forge_jobs.storage.types.job import JobFilter

from .stage import Cli, add, claim, finish, in_store, start, status_of

UNKNOWN = "01JH3V7M8Q2X4N5P6R7S8T9VWX"
JOB_ROW = {
    *("id", "queue", "kind", "status", "priority", "attempts", "max_attempts", "crashes", "fence", "enqueued_at"),
    *("scheduled_at", "expires_at", "started_at", "completed_at", "heartbeat_at", "process_id", "worker"),
    *("dedupe_key", "dead_reason", "last_error", "cancel_requested_at", "tags", "parent_id", "schedule"),
    "payload_preview",
}


def dead(kind: str = "echo", message: str = "no", **options: Any) -> str:
    job_id = add(kind, **options)
    finish(claim(kind), Dead(ErrorText(message)))
    return job_id


def audit() -> list[AuditRow]:
    async def work(storage: Storage) -> list[AuditRow]:
        return await storage.audit.list()

    return in_store(work)


def test_a_list_is_one_document_with_items_cursor_and_total(cli: Cli) -> None:
    ids = [add(payload={"n": n}) for n in range(5)]
    first = cli("jobs", "list", "--limit", "3", "--json").json
    assert set(first) == {"items", "next_cursor", "total"}
    assert set(first["items"][0]) == JOB_ROW
    assert [job["id"] for job in first["items"]] == ids[:1:-1]
    assert first["total"] == 5
    second = cli("jobs", "list", "--limit", "3", "--cursor", first["next_cursor"], "--json").json
    assert [job["id"] for job in second["items"]] == ids[1::-1]
    assert second["next_cursor"] is None
    assert cli("jobs", "list", "--cursor", "nonsense").code == 2


def test_instants_are_utc_with_microseconds(cli: Cli) -> None:
    add()
    at = cli("jobs", "list", "--json").json["items"][0]["enqueued_at"]
    assert len(at) == len("2026-03-01T09:30:00.000000Z")
    assert at.endswith("Z")


def test_a_list_of_lines_has_one_document_a_line(cli: Cli) -> None:
    add()
    add()
    result = cli("jobs", "list", "--jsonl")
    assert len([json.loads(line) for line in result.lines]) == 2


def test_a_table_in_a_pipe_is_aligned_text_and_the_total_goes_to_stderr(cli: Cli) -> None:
    job_id = add("mail", {"to": "x" * 300})
    result = cli("jobs", "list")
    head, row = result.lines
    assert head.split()[:4] == ["ID", "QUEUE", "KIND", "STATUS"]
    assert row.startswith(job_id)
    assert head.index("KIND") == row.index("mail")
    assert "\x1b" not in result.out
    assert "1 of 1 jobs" in result.err


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (["--queue", "a"], {"one", "two"}),
        (["--queue", "a", "--queue", "b"], {"one", "two", "three"}),
        (["--kind", "one"], {"one"}),
        (["--status", "done"], {"three"}),
        (["--status", "done", "--status", "dead"], {"three", "four"}),
        (["--dead-reason", "rejected"], {"four"}),
        (["--key", "k1"], {"one"}),
        (["--tag", "red"], {"two"}),
        (["--search", "100%_A"], {"two"}),
        (["--error", "UPSTREAM"], {"four"}),
        (["--since", "1h"], {"one", "two", "three", "four"}),
        (["--until", "1h"], set()),
        (["--since", "2020-01-01T00:00:00Z", "--until", "2020-02-01T00:00:00Z"], set()),
        (["--queue", "nobody"], set()),
    ],
)
def test_filters(cli: Cli, arguments: list[str], kinds: set[str]) -> None:
    add("one", queue="a", dedupe_key="k1")
    add("two", {"text": "100%_a"}, queue="a", tags=("red",))
    add("three", {"text": "100xxa"}, queue="b")
    finish(claim("three", "b"), Done())
    add("four", queue="c")
    finish(claim("four", "c"), Dead(ErrorText("upstream said no")))
    page = cli("jobs", "list", *arguments, "--json").json
    assert {job["kind"] for job in page["items"]} == kinds
    assert page["total"] == len(kinds)


def test_show_tells_everything(cli: Cli) -> None:
    job_id = add("mail", {"to": "a@example.org", "nested": {"api_key": "s3cret"}})
    finish(claim("mail"), Failed(error=ErrorText("boom", "Traceback: password=hunter2"), delay=timedelta(minutes=1)))
    shown = cli("jobs", "show", job_id.lower(), "--json").json
    assert set(shown) == JOB_ROW | {"payload", "history", "timeline", "traceback", "progress", "log"}
    assert shown["payload"] == {"to": "a@example.org", "nested": {"api_key": "[redacted]"}}
    assert [entry["message"] for entry in shown["history"]] == ["boom"]
    assert [event["type"] for event in shown["timeline"]] == ["enqueued", "started", "retried"]
    assert shown["traceback"] == "Traceback: password=[redacted]"
    plain = cli("jobs", "show", job_id)
    assert plain.code == 0
    for part in (job_id, "failed", "boom", "a@example.org", "retried", "[redacted]"):
        assert part in plain.out
    assert "s3cret" not in plain.out
    assert "hunter2" not in plain.out


def test_an_unknown_job_is_a_failure(cli: Cli) -> None:
    add()
    for id in (UNKNOWN, "nope"):
        result = cli("jobs", "show", id)
        assert (result.code, result.out) == (1, "")
        assert f"there is no job {id}" in result.err.replace("'", "")


def test_what_is_printed_cannot_move_the_cursor(cli: Cli) -> None:
    evil = "\x1b[31mred\u202eknil\x07\x7f\u200b"
    add("echo", {"text": evil})
    finish(claim(), Failed(error=ErrorText(f"line\nbreak {evil}"), delay=timedelta(0)))
    for command in (
        ["jobs", "list"],
        ["jobs", "list", "--json"],
        ["jobs", "list", "--jsonl"],
        ["jobs", "show", cli("jobs", "list", "--json").json["items"][0]["id"]],
        ["jobs", "export"],
        ["jobs", "export", "--format", "csv"],
    ):
        out = cli(*command).out
        assert not set(out) & set("\x1b\u202e\x07\x7f\u200b"), command
    assert cli("jobs", "list", "--json").json["items"][0]["last_error"] == f"line\nbreak {evil}"
    assert len(cli("jobs", "list").lines) == 2


def test_the_preview_is_redacted_and_short(cli: Cli) -> None:
    add("echo", {"password": "hunter2", "text": "x" * 500})
    shown = cli("jobs", "list", "--json").json["items"][0]["payload_preview"]
    assert len(shown) == 200
    assert "hunter2" not in shown


# Mending


def test_retry_by_id(cli: Cli) -> None:
    job_id, waiting = dead(), add()
    result = cli("jobs", "retry", job_id)
    assert (result.code, result.out) == (0, f"retried {job_id}\n")
    assert status_of(job_id) == "pending"
    result = cli("jobs", "retry", waiting, UNKNOWN, "--json")
    assert result.code == 1
    assert result.json == {
        "changed": 0,
        "skipped": {"is_pending": 1, "not_found": 1},
        "items": [
            {"id": waiting, "changed": False, "outcome": "is_pending"},
            {"id": UNKNOWN, "changed": False, "outcome": "not_found"},
        ],
    }


def test_retry_names_who_holds_the_key(cli: Cli) -> None:
    job_id = dead(dedupe_key="k")
    holder = add(dedupe_key="k")
    result = cli("jobs", "retry", job_id)
    assert (result.code, result.out) == (1, f"slot_held {job_id} by {holder}\n")


def test_cancel_and_delete_by_id(cli: Cli) -> None:
    job_id = add()
    assert cli("jobs", "cancel", job_id).out == f"cancelled {job_id}\n"
    again = cli("jobs", "cancel", job_id)
    assert (again.code, again.out) == (1, f"already_finished {job_id}\n")
    assert cli("jobs", "delete", job_id).out == f"deleted {job_id}\n"
    assert status_of(job_id) == "gone"


def test_a_running_job_is_asked_to_stop_and_delete_says_so(cli: Cli) -> None:
    job_id = add()
    claim()
    result = cli("jobs", "delete", job_id)
    assert (result.code, result.out) == (0, f"cancel_requested {job_id}\n")
    assert "delete it again once it is dead" in result.err
    assert status_of(job_id) == "in_progress"


def test_run_now_by_id(cli: Cli) -> None:
    later, finished = add(delay=3600), dead("other")
    assert cli("jobs", "run-now", later).out == f"due {later}\n"
    assert claim().id == later
    assert cli("jobs", "run-now", finished).out == f"not_pending {finished}\n"
    assert cli("jobs", "run-now", UNKNOWN).out == f"not_found {UNKNOWN}\n"


def test_a_filter_acts_on_what_it_fits_and_counts_the_rest(cli: Cli) -> None:
    for n in range(3):
        dead(payload={"n": n})
    add("mail")
    result = cli("jobs", "retry", "--queue", "default", "--yes")
    assert result.code == 0
    assert result.lines == ["retried 3", "skipped 1 is_pending"]
    assert "4 jobs match (3 dead, 1 pending)" in result.err
    assert cli("jobs", "delete", "--kind", "echo", "--limit", "2", "--yes", "--json").json == {
        "changed": 2,
        "skipped": {},
    }
    assert cli("jobs", "cancel", "--kind", "nobody", "--yes").lines == ["cancelled 0"]


def test_every_change_is_audited_with_the_user_of_the_system(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "mallory")
    assert getpass.getuser() == "mallory"
    job_id = dead()
    cli("jobs", "retry", job_id)
    cli("jobs", "cancel", "--kind", "echo", "--yes")
    cli("queues", "set", "default", "--max-workers", "3")
    cli("queues", "pause", "default")
    cli("queues", "resume", "default")
    rows = audit()
    assert [row.action for row in reversed(rows)] == [
        "job.retry",
        "jobs.cancel",
        "queue.set",
        "queue.pause",
        "queue.resume",
    ]
    user = pwd.getpwuid(os.getuid()).pw_name
    assert {(row.actor.name, row.actor.surface) for row in rows} == {(user, "cli")}


# Export


def test_export_writes_every_job_as_a_line(cli: Cli) -> None:
    ids = [add(payload={"n": n, "token": "abc"}) for n in range(3)]
    dead("other")
    result = cli("jobs", "export", "--kind", "echo")
    rows = [json.loads(line) for line in result.lines]
    assert [row["id"] for row in rows] == ids[::-1]
    assert rows[0]["payload"] == {"n": 2, "token": "[redacted]"}
    assert "3 jobs written" in result.err
    assert len(cli("jobs", "export", "--limit", "2").lines) == 2


def test_export_walks_all_pages(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_jobs.cli.jobs_export.PAGE", 2)
    ids = [add(payload={"n": n}) for n in range(5)]
    assert [json.loads(line)["id"] for line in cli("jobs", "export").lines] == ids[::-1]


def test_a_spreadsheet_does_not_take_text_for_a_formula(cli: Cli) -> None:
    add("echo", "=1+1", priority=-5, dedupe_key="@SUM(A1)", tags=("+t",))
    finish(claim(), Failed(error=ErrorText("-2+3"), delay=timedelta(0)))
    (row,) = csv.DictReader(io.StringIO(cli("jobs", "export", "--format", "csv").out))
    assert row["dedupe_key"] == "'@SUM(A1)"
    assert row["last_error"] == "'-2+3"
    assert row["tags"] == "'+t"
    assert row["payload"] == '"=1+1"'
    assert row["priority"] == "-5"


def test_a_group_of_dead_jobs_is_retried_with_a_rate(cli: Cli) -> None:
    ids = [dead(message=f"no answer from host {n}", max_attempts=1) for n in range(3)]
    other = dead(message="disk full", max_attempts=1)
    found = cli("jobs", "groups", "--json").json
    assert [(one["count"], one["kinds"]) for one in found["items"]] == [(3, ["echo"]), (1, ["echo"])]
    mark = found["items"][0]["fingerprint"]
    assert mark in cli("jobs", "groups").out
    done = cli("jobs", "retry", "--fingerprint", mark, "--per-second", "0.01", "--yes", "--json")
    assert (done.code, done.json) == (0, {"changed": 3, "skipped": {}})
    assert "3 jobs match (3 dead)" in done.err
    due = sorted(cli("jobs", "show", id, "--json").json["scheduled_at"] for id in ids)
    assert [(instant(at) - instant(due[0])).total_seconds() for at in due] == [0, 100, 200]
    assert status_of(other) == "dead"
    again = cli("jobs", "retry", "--fingerprint", mark, "--per-second", "0.01", "--yes", "--json")
    assert (again.code, again.json) == (0, {"changed": 0, "skipped": {}})


@pytest.mark.parametrize(
    "wrong",
    [
        ("retry", UNKNOWN, "--per-second", "1"),
        ("cancel", "--per-second", "1", "--yes"),
        ("retry", "--per-second", "0", "--yes"),
    ],
)
def test_a_rate_is_for_retries_by_filter(cli: Cli, wrong: tuple[str, ...]) -> None:
    refused = cli("jobs", *wrong)
    assert refused.code == 2 and "--per-second" in refused.err


def test_progress_of_a_long_act_is_told(cli: Cli) -> None:
    async def work(storage: Storage) -> None:
        await storage.jobs.enqueue_bulk([EnqueueRequest("echo", {}, queue="default") for _ in range(1_100)])

    in_store(work)
    done = cli("jobs", "cancel", "--kind", "echo", "--yes")
    assert done.out.splitlines() == ["cancelled 1100"]
    assert [line for line in done.err.splitlines() if " of " in line] == ["500 of 1100", "1000 of 1100"]


def test_a_retry_whose_process_is_killed_is_finished_by_asking_again(cli: Cli) -> None:
    """What it retried has its time and is not touched again, what it did not reach is retried."""
    jobs = 6_000

    async def work(storage: Storage) -> None:
        await storage.jobs.enqueue_bulk([EnqueueRequest("echo", {}, queue="default") for _ in range(jobs)])
        await storage.jobs.act_on("cancel", JobFilter())

    async def pending(storage: Storage) -> int:
        return (await storage.jobs.count(JobFilter())).get("pending", 0)

    in_store(work)
    order = ("jobs", "retry", "--status", "dead", "--status", "pending", "--per-second", "100", "--yes")
    running = start(*order)
    assert running.stderr is not None
    while "500 of" not in running.stderr.readline():
        pass
    running.kill()
    running.communicate()
    done = in_store(pending)
    assert 500 <= done < jobs and done % 500 == 0  # whole batches
    again = cli(*order, "--json").json
    assert again == {"changed": jobs - done, "skipped": {"is_pending": done}}
    assert in_store(pending) == jobs
    assert sum(row.count for row in audit() if row.action == "jobs.retry") == jobs


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
