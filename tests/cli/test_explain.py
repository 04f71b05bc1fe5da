"""`jobs explain`, `queues explain` and `schedules explain` on real stores."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from forge_jobs.ids import JobId
from forge_jobs.storage.types.finalize import Dead, ErrorText

from .stage import Cli, Start, add, claim, finish, in_store, until


def test_a_job_that_nobody_serves(cli: Cli) -> None:
    job_id = add("mail", queue="letters")
    shown = cli("jobs", "explain", job_id)
    assert shown.code == 0
    assert re.split(r"\s+", shown.lines[0]) == ["BLOCKER", "SINCE", "UNTIL", "SAYS"]
    assert shown.lines[1].startswith("queue_unserved")
    assert "forge-jobs worker app:handlers --queues letters" in shown.out


def test_a_job_for_programs(cli: Cli) -> None:
    job_id = add(delay=3600)
    cli("queues", "pause", "default")
    found = cli("jobs", "explain", job_id, "--json").json
    assert found["job_id"] == job_id
    assert [one["code"] for one in found["blockers"]] == ["queue_paused", "queue_unserved", "scheduled"]
    paused, _, scheduled = found["blockers"]
    assert paused["since"].endswith("Z")
    assert scheduled["until"].endswith("Z")
    assert paused["remedy"] == "forge-jobs queues resume default"


@pytest.mark.parametrize("job_id", ["01JH3V7M8Q2X4N5P6R7S8T9VWX", "no-id"])
def test_an_unknown_job_ends_with_1(cli: Cli, job_id: str) -> None:
    add()
    shown = cli("jobs", "explain", job_id)
    assert shown.code == 1
    assert "unknown_id" in shown.out


def test_secrets_in_an_error_stay_hidden(cli: Cli) -> None:
    job_id = add()
    finish(claim(), Dead(ErrorText("GET https://u:hunter2@example.org/?token=abc123def failed")))
    shown = cli("jobs", "explain", job_id)
    assert "finished" in shown.out
    assert "hunter2" not in shown.out


def test_an_error_cannot_move_the_cursor(cli: Cli) -> None:
    job_id = add()
    finish(claim(), Dead(ErrorText("\x1b[2Jboo\x07")))
    assert "\x1b" not in cli("jobs", "explain", job_id).out


def test_a_queue_and_a_schedule(cli: Cli) -> None:
    add()
    cli("schedules", "add", "nightly", "echo", "0 3 * * *")
    assert [one["code"] for one in cli("queues", "explain", "default", "--json").json["blockers"]] == ["queue_unserved"]
    found = cli("schedules", "explain", "nightly", "--json").json
    assert [one["code"] for one in found["blockers"]] == ["no_leader", "scheduled"]
    cli("schedules", "disable", "nightly")
    assert "schedule_disabled" in cli("schedules", "explain", "nightly").out
    for noun in ("queues", "schedules"):
        assert cli(noun, "explain", "nobody").code == 1
        assert cli(noun, "explain", "a,b").code != 0


def test_a_terminal_gets_a_drawn_table() -> None:
    job_id = add(delay=60)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "forge_jobs", "jobs", "explain", job_id],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        timeout=60,
        check=False,
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "\x1b[1m" in shown
    assert "scheduled" in shown


def test_what_a_real_worker_tells_of_itself(worker: Start) -> None:
    started = worker("--name", "w1", "--slots", "1")
    assert started.stdout is not None
    assert "worker" in started.stdout.readline()
    slow, waiting, strange, elsewhere = add("slow"), add("echo"), add("strange"), add(queue="elsewhere")

    def explained(job_id: JobId) -> dict[str, str]:
        return {str(one.code): one.text for one in in_store(lambda storage: storage.jobs.explain(job_id))}

    until(lambda: "running" in explained(slow))
    assert "w1 has been running it" in explained(slow)["running"]
    assert list(explained(waiting)) == ["slots_busy"]
    assert list(explained(strange)) == ["kind_unserved"]
    assert "1 live worker" in explained(elsewhere)["queue_unserved"]
