"""Schedules on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_jobs import ScheduleDeclaration, Storage
from forge_jobs.storage.types.event import AuditRow
from forge_jobs.storage.types.process import ProcessInfo, ProcessState
from forge_jobs.storage.types.schedule import Schedule

from .stage import Cli, in_store, status_of

SPRING = ("--from", "2026-03-28T12:00:00Z")


def stored(name: str = "nightly") -> Schedule:
    async def work(storage: Storage) -> Schedule:
        found = await storage.schedules.get(name)
        assert found is not None
        return found

    return in_store(work)


def declare(name: str = "nightly", **settings: object) -> None:
    async def work(storage: Storage) -> None:
        await storage.schedules.ensure(ScheduleDeclaration(name, "echo", "0 3 * * *", **settings))  # type: ignore[arg-type]

    in_store(work)


def live_worker(*schedules: str) -> None:
    """A worker that beats once and declares these."""

    async def work(storage: Storage) -> None:
        from datetime import timedelta

        heart = storage.processes.open_heart(timedelta(seconds=5))
        info = ProcessInfo(
            host_id="01JH3V7M8Q2X4N5P6R7S8T9V00",
            label=None,
            host_name="here",
            pid=1,
            version="0",
            queues=("default",),
            kinds=("echo",),
            slots={},
            running={},
            state=ProcessState.RUNNING,
            schedules=schedules,
        )
        heart.beat(info, [])
        heart.close()

    in_store(work)


def test_add_makes_a_store_and_prints_the_next_three_fires(cli: Cli, here: Path) -> None:
    result = cli(
        *("schedules", "add", "nightly", "echo", "30 2 * * *", "--zone", "Europe/Berlin", "--payload", '{"n": 1}'),
        *("--queue", "reports", "--gap", "skip", "--fold", "both", "--misfire", "all(5)", "--misfire-grace", "10m"),
        *("--skip-if-running", "--dedupe-key", "k", "--jitter", "30s", "--priority", "-4", "--max-attempts", "2"),
        *("--starts-at", "2030-01-01T00:00:00Z", "--ends-at", "2030-01-03T00:00:00Z"),
    )
    assert (result.code, result.err) == (0, "")
    assert result.lines[0] == "nightly added"
    assert [line[:17] for line in result.lines[2:]] == ["2030-01-01 01:30:", "2030-01-02 01:30:"]
    settings = stored().settings
    assert (settings.payload, settings.queue, settings.gap, settings.fold) == ({"n": 1}, "reports", "skip", "both")
    assert (settings.misfire, settings.misfire_grace_s, settings.jitter_s) == ("all(5)", 600, 30)
    assert (settings.skip_if_running, settings.dedupe_key) == (True, "k")
    assert (settings.priority, settings.max_attempts) == (-4, 2)
    again = cli("schedules", "add", "nightly", "echo", "@daily")
    assert (again.code, again.out) == (1, "")
    assert "there is a schedule 'nightly' already" in again.err


def test_add_as_json_has_the_next_fires(cli: Cli) -> None:
    found = cli("schedules", "add", "x", "echo", "@hourly", "--json").json
    assert (found["name"], found["state"], found["expr"], len(found["next_fires"])) == ("x", "active", "@hourly", 3)
    assert found["edited"]["expr"]["by"]


@pytest.mark.parametrize(
    ("expr", "zone", "said"),
    [
        ("61 * * * *", "UTC", "minute '61': 61 is not within 0 … 59"),
        ("* * * *", "UTC", "expr '* * * *': it has 4 fields"),
        ("0 0 30 2 *", "UTC", "expr '0 0 30 2 *': never fires"),
        ("*/0 * * * *", "UTC", "minute '*/0': a step of 0"),
        ("* * * * *", "Mars/Olympus", "zone 'Mars/Olympus' is not known"),
        ("0 0 1 1 * 2030 1", "UTC", "`ends_at`"),
    ],
)
def test_a_bad_expression_is_a_usage_error_that_names_it_and_touches_nothing(
    cli: Cli, here: Path, expr: str, zone: str, said: str
) -> None:
    for command in (("add", "x", "echo", expr), ("preview", expr)):
        result = cli("schedules", *command, "--zone", zone)
        assert (result.code, result.out) == (2, ""), command
        assert said in result.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--misfire", "some"), "misfire 'some' must be latest, skip or all(n)"),
        (("--jitter", "2h"), "jitter_s 7200.0 is not a number of seconds within 0 … 3600"),
        (("--payload", "{"), "not JSON"),
        (("--priority", "9999"), "priority 9999 is not within"),
        (("--starts-at", "2026-01-01T00:00:00"), "has no time zone"),
        (("--gap", "jump"), "'jump' is not one of 'shift', 'skip'"),
        (("--queue", "a b"), "queue name 'a b' is not legal"),
    ],
)
def test_a_bad_setting_is_a_usage_error(cli: Cli, here: Path, options: tuple[str, str], said: str) -> None:
    result = cli("schedules", "add", "x", "echo", "@daily", *options)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert list(here.iterdir()) == []


def test_a_bad_name_is_a_usage_error(cli: Cli) -> None:
    for command in ("enable", "disable", "trigger", "reset"):
        assert cli("schedules", command, "a b").code == 2


def test_preview_marks_the_days_on_which_the_clocks_change(cli: Cli) -> None:
    zone = ("--zone", "Europe/Berlin")
    result = cli("schedules", "preview", "30 2 * * *", *zone, *SPRING, "-n", "2")
    assert result.lines[1].startswith("2026-03-29 01:00:00Z  Sun 2026-03-29 03:00:00 +0200  gap: ")
    assert result.lines[2].split() == ["2026-03-30", "00:30:00Z", "Mon", "2026-03-30", "02:30:00", "+0200"]
    page = cli("schedules", "preview", "30 2 * * *", *zone, "--from", "2026-10-24T12:00:00Z", "--json").json
    assert page["total"] == 10
    assert page["items"][0] == {
        "at": "2026-10-25T00:30:00.000000Z",
        "local": "2026-10-25T02:30:00+02:00",
        "odd": "fold",
    }
    assert page["items"][1]["odd"] is None
    assert len(cli("schedules", "preview", "@daily", "-n", "4", "--jsonl").lines) == 4
    assert cli("schedules", "preview", "@daily", "-n", "101").code == 2


def test_the_list_shows_state_edits_and_why_one_is_silent(cli: Cli) -> None:
    declare()
    cli("schedules", "set", "nightly", "--priority", "3")
    cli("schedules", "add", "off", "echo", "@daily", "--disabled")
    table = cli("schedules", "list")
    assert table.lines[0].split()[:3] == ["SCHEDULE", "STATE", "KIND"]
    assert "no live worker fires schedules; edited: priority" in table.lines[1]
    assert table.lines[2].split()[:2] == ["off", "disabled"]
    page = cli("schedules", "list", "--json").json
    assert (page["total"], page["next_cursor"]) == (2, None)
    first = page["items"][0]
    assert first["differences"] == {"priority": {"declared": 0, "stored": 3}}
    assert (first["undeclared"], first["why_silent"]) == (False, "no live worker fires schedules")
    assert page["items"][1]["why_silent"].startswith("disabled by ")
    assert len(cli("schedules", "list", "--jsonl").lines) == 2


def test_what_no_live_worker_declares_any_more_is_undeclared(cli: Cli) -> None:
    declare("kept")
    declare("dropped")
    cli("schedules", "add", "by-hand", "echo", "@daily")
    live_worker("kept")
    items = cli("schedules", "list", "--json").json["items"]
    assert {one["name"]: one["undeclared"] for one in items} == {"by-hand": False, "dropped": True, "kept": False}
    checks = [one for one in cli("doctor", "--json").json["checks"] if one["name"] == "schedules"]
    assert [one["verdict"] for one in checks] == ["warn", "warn"]
    assert "dropped is undeclared" in checks[0]["detail"]
    assert checks[1]["detail"] == "no worker fires schedules"
    removed = cli("schedules", "remove", "kept", "--yes")
    assert "it comes back when one starts" in removed.err


def test_set_changes_what_is_given_and_none_takes_it_away(cli: Cli) -> None:
    declare(queue="reports", max_attempts=3)
    result = cli("schedules", "set", "nightly", "--queue", "none", "--max-attempts", "none", "--expr", "0 4 * * *")
    assert (result.code, result.lines[0]) == (0, "nightly changed")
    settings = stored().settings
    assert (settings.queue, settings.max_attempts, settings.expr) == (None, None, "0 4 * * *")
    assert cli("schedules", "set", "nightly").code == 2
    assert cli("schedules", "reset", "nightly").lines[0] == "nightly reset to what code declares"
    assert stored().settings.queue == "reports"


def test_disable_enable_and_remove(cli: Cli) -> None:
    declare()
    assert cli("schedules", "disable", "nightly").out == "nightly disabled\n"
    assert not stored().settings.enabled
    assert cli("schedules", "enable", "nightly").lines[0] == "nightly enabled"
    assert stored().settings.enabled
    assert cli("schedules", "remove", "nightly").code == 2
    assert cli("schedules", "remove", "nightly", "--yes").out == "nightly removed\n"
    assert cli("schedules", "remove", "nightly", "--yes", "--json").json == {"name": "nightly", "removed": False}


def test_trigger_enqueues_and_says_deduped(cli: Cli) -> None:
    declare(skip_if_running=True)
    first = cli("schedules", "trigger", "nightly", "--json").json
    assert first["outcome"] == "enqueued"
    assert status_of(first["id"]) == "pending"
    assert cli("schedules", "trigger", "nightly").out == f"deduped {first['id']}\n"
    assert cli("schedules", "trigger", "nightly", "--force").out.startswith("enqueued ")


def test_unknown_schedules_are_failures(cli: Cli) -> None:
    cli("db", "create")
    for command in (
        ["set", "x", "--priority", "1"],
        ["enable", "x"],
        ["disable", "x"],
        ["trigger", "x"],
        ["reset", "x"],
    ):
        result = cli("schedules", *command)
        assert (result.code, result.out) == (1, ""), command
        assert "there is no schedule 'x'" in result.err


def test_looking_makes_no_database(cli: Cli, here: Path) -> None:
    assert cli("schedules", "list").code == 1
    assert list(here.iterdir()) == []


def test_every_change_is_audited_with_the_user_of_the_system(cli: Cli) -> None:
    cli("schedules", "add", "nightly", "echo", "@daily")
    cli("schedules", "disable", "nightly")

    async def work(storage: Storage) -> list[AuditRow]:
        return await storage.audit.list()

    rows = in_store(work)
    assert [(row.action, row.actor.surface) for row in rows] == [("schedule.disable", "cli"), ("schedule.add", "cli")]
