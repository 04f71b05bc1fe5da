"""The store as a whole."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .stage import Cli, add


def test_create_is_idempotent(here: Path, cli: Cli) -> None:
    result = cli("db", "create")
    assert (result.code, result.out) == (0, f"sqlite:///{here}/forge-jobs.db created\n")
    again = cli("db", "create", "--json")
    assert (again.code, again.json) == (0, {"store": f"sqlite:///{here}/forge-jobs.db", "created": False})


def test_status_tells_version_and_durability(cli: Cli) -> None:
    add()
    found = cli("db", "status", "--json").json
    assert (found["backend"], found["durability"], found["current"]) == ("sqlite", "full", True)
    assert found["schema_version"] >= 1
    assert "durability" in cli("db", "status").out


def test_status_of_a_stale_schema_is_a_failure_and_migrate_mends_it(here: Path, cli: Cli) -> None:
    sqlite3.connect(here / "forge-jobs.db").execute("CREATE TABLE other (id INTEGER)")
    stale = cli("db", "status", "--json")
    assert stale.code == 1
    assert stale.json["current"] is False
    assert cli("jobs", "list").code == 1
    plan = cli("db", "migrate", "--plan")
    assert "CREATE TABLE" in plan.out
    assert cli("db", "status").code == 1
    assert cli("db", "migrate").code == 0
    assert cli("db", "status").code == 0
    assert cli("db", "migrate", "--json").json["applied"] == []


def test_sql_is_a_schema_that_can_be_applied_by_hand(cli: Cli) -> None:
    result = cli("db", "sql")
    connection = sqlite3.connect(":memory:")
    connection.executescript(result.out)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"forge_jobs", "forge_queues", "forge_audit"} <= tables


def test_backup_is_a_whole_store_in_a_new_file(here: Path, cli: Cli) -> None:
    job_id = add()
    assert cli("db", "backup", "copy.db").code == 0
    page = cli("--database", "sqlite:///copy.db", "jobs", "list", "--json").json
    assert [job["id"] for job in page["items"]] == [job_id]
    again = cli("db", "backup", "copy.db")
    assert again.code == 1
    assert "copy.db exists" in again.err
    nowhere = cli("db", "backup", "nowhere/copy.db")
    assert nowhere.code == 1
    assert f"the directory {here}/nowhere does not exist" in nowhere.err


def test_drop_and_reset_touch_nothing_without_force(here: Path, cli: Cli) -> None:
    add()
    for verb in ("drop", "reset"):
        result = cli("db", verb)
        assert result.code == 2
        assert f"{here}/forge-jobs.db" in result.err
    assert cli("jobs", "list", "--json").json["total"] == 1


def test_reset_empties_the_store_and_drop_removes_it(here: Path, cli: Cli) -> None:
    add()
    result = cli("db", "reset", "--force")
    assert result.code == 0
    assert f"store: sqlite:///{here}/forge-jobs.db" in result.err
    assert cli("jobs", "list", "--json").json["total"] == 0
    assert cli("db", "drop", "--force", "--json").json["dropped"] is True
    assert not list(here.glob("forge-jobs.db*"))


def test_a_damaged_store_is_dropped_only_on_request(here: Path, cli: Cli) -> None:
    (here / "forge-jobs.db").write_text("not a database " * 100)
    result = cli("db", "drop", "--force")
    assert result.code == 1
    assert "--even-if-live" in result.err
    assert (here / "forge-jobs.db").exists()
    assert cli("db", "drop", "--force", "--even-if-live").code == 0
    assert not (here / "forge-jobs.db").exists()
