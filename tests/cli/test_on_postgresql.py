"""The same commands on a PostgreSQL server, and what they say of one that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from forge_jobs.testing.postgres import Server
from forge_jobs.testing.throwaway import reserved_port
from postgres.pgbouncer import PgBouncer

from .stage import Cli, Result, Start, program, until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    made = server.new_database()
    yield made
    server.drop_database(made)


@pytest.fixture
def forge(url: str, cli: Cli) -> Cli:
    """Commands on a store that is there."""
    assert cli("--database", url, "db", "create").code == 0

    def run(*arguments: str) -> Result:
        return cli("--database", url, *arguments)

    return run


def test_a_store_is_made_used_looked_at_and_dropped(url: str, app: Path) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        result = program("--database", url, *arguments)
        assert result.code == code, (arguments, result)
        return result.out

    assert "db create" in program("--database", url, "jobs", "list").err
    run("db", "status", code=1)
    assert run("db", "create").endswith(" created\n")
    assert run("db", "create").endswith(" exists\n")
    assert run("db", "migrate").startswith("0 migrations applied")
    assert "CREATE TABLE forge.jobs" in run("db", "sql")
    run("db", "status")
    run("enqueue", "echo", "{}")
    Path("jobs.jsonl").write_text('{"kind": "echo"}\n' * 20 + '{"kind": "fail", "max_attempts": 1, "payload": {}}\n')
    run("enqueue", "--bulk", "jobs.jsonl")
    run("queues", "pause", "default")
    run("queues", "resume", "default")
    run("worker", "app:handlers", "--drain")
    assert '"total": 22' in run("jobs", "list", "--json")
    run("queues", "list")
    run("db", "drop", code=2)
    assert run("db", "drop", "--force").endswith(" dropped\n")
    run("db", "status", code=1)


def test_what_cannot_be_used_is_one_line_and_an_exit_code(url: str, cli: Cli) -> None:
    with reserved_port() as port:
        closed = cli("--database", f"postgresql://postgres@127.0.0.1:{port}/x", "db", "status")
    assert (closed.code, len(closed.err.splitlines())) == (1, 1)
    assert f"127.0.0.1:{port}/x does not answer" in closed.err
    for wrong, says in (
        (url.replace("postgres@", "nobody@"), 'role "nobody" does not exist'),
        (url.rpartition("/")[0] + "/nowhere", 'database "nowhere" does not exist'),
        ("mysql://root@127.0.0.1/x", "mysql"),
    ):
        result = cli("--database", wrong, "db", "status")
        assert result.code in (1, 2)
        assert says in result.err


def test_the_schema_of_another_program_is_left_alone(url: str, cli: Cli) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA forge")
        connection.execute("CREATE TABLE forge.schema (theirs integer)")
    result = cli("--database", url, "db", "create")
    assert result.code == 2
    assert "choose another schema" in result.err


def test_doctor_tells_what_a_process_holds_and_how_jobs_are_found(url: str, cli: Cli) -> None:
    cli("--database", url, "db", "create")
    checks = {check["name"]: check for check in cli("--database", url, "doctor", "--json").json["checks"]}
    assert "a process holds at most 6" in checks["connections"]["detail"]
    assert checks["notifications"]["detail"] == "a direct connection"
    assert checks["clock"]["verdict"] == "ok"
    assert checks["disk"]["verdict"] == "fail", "the test's server syncs nothing"
    assert "PostgreSQL" in checks["store"]["detail"]


def test_jobs_are_shown_retried_cancelled_and_deleted(forge: Cli, url: str, app: Path) -> None:
    failing = forge("enqueue", "fail", "{}", "--max-attempts", "1", "--json").json["id"]
    waiting = forge("enqueue", "echo", "{}", "--delay", "1h", "--json").json["id"]
    program("--database", url, "worker", "app:handlers", "--drain")
    shown = forge("jobs", "show", failing, "--json").json
    assert (shown["status"], shown["dead_reason"], shown["last_error"]) == ("dead", "exhausted", "broken")
    assert forge("jobs", "show", waiting).out.startswith("id")
    assert forge("jobs", "retry", failing).out == f"retried {failing}\n"
    assert forge("jobs", "cancel", waiting).out == f"cancelled {waiting}\n"
    assert forge("jobs", "retry", "--status", "dead", "--yes").out == "retried 1\n"
    assert forge("jobs", "delete", failing).out == f"deleted {failing}\n"
    assert forge("jobs", "delete", "--status", "pending", "--yes").out == "deleted 1\n"
    assert forge("jobs", "show", failing).code == 1
    assert forge("jobs", "list", "--json").json["total"] == 0


def test_limits_are_added_listed_and_tuned(forge: Cli) -> None:
    assert forge("limits", "add", "gh", "--capacity", "50", "--refill", "3600/1h", "--json").json["tokens"] == 50
    assert "exists already" in forge("limits", "add", "gh", "--capacity", "1", "--refill", "1").err
    assert forge("limits", "set", "gh", "--capacity", "10", "--json").json["changed_by"]
    (limit,) = forge("limits", "list", "--json").json["items"]
    assert (limit["scope"], limit["capacity"], limit["tokens"], limit["refill_per_s"]) == ("gh", 10, 10, 1)


def test_workers_and_what_nobody_serves_are_shown_and_keep_the_store_from_being_dropped(
    forge: Cli, url: str, worker: Start
) -> None:
    process = worker("--name", "blue", "--slots", "3", FORGE_DATABASE_URL=url)
    until(lambda: [row["slots"] for row in forge("workers", "--json").json["items"]] == [{"default": 3}])
    forge("enqueue", "unheard-of", "{}")
    forge("enqueue", "echo", "{}", "--queue", "elsewhere")
    (row,) = forge("workers", "--json").json["items"]
    assert (row["worker"], row["pid"], row["state"]) == ("blue", process.pid, "running")
    missing = [
        "kind unheard-of of queue default has no handler in any live worker; 1 job waits",
        "queue elsewhere has no live worker; 1 job waits",
    ]
    assert forge("workers").err.splitlines() == [f"unserved: {what}" for what in missing]
    doctor = forge("doctor", "--json").json["checks"]
    assert [(one["verdict"], one["detail"]) for one in doctor if one["name"] == "unserved"] == [
        ("warn", what) for what in missing
    ]
    for verb in ("drop", "reset"):
        refused = forge("db", verb, "--force")
        assert refused.code == 1
        assert f"live workers: blue (pid {process.pid})" in refused.err
    assert forge("jobs", "list", "--json").json["total"] == 2
    assert forge("db", "drop", "--force", "--even-if-live").out.endswith(" dropped\n")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regnamespace('forge')").fetchone() == (None,)


def test_doctor_tells_how_jobs_are_heard_of_behind_a_pooler(
    forge: Cli, cli: Cli, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notifications(database: str) -> Any:
        checks = cli("--database", database, "doctor", "--json").json["checks"]
        return next((one["verdict"], one["remedy"], one["detail"]) for one in checks if one["name"] == "notifications")

    with PgBouncer(server.url, pool_size=2) as bouncer, reserved_port() as closed:
        pooled = bouncer.url_through(url)
        by_polling = "a pooler stands between: workers find jobs by polling"
        advice = "set listen_url to a direct connection"
        assert notifications(pooled) == ("warn", advice, by_polling)
        monkeypatch.setenv("FORGE_LISTEN_URL", pooled)
        assert notifications(pooled) == ("warn", advice, by_polling)
        monkeypatch.setenv("FORGE_LISTEN_URL", f"postgresql://postgres@127.0.0.1:{closed}/x")
        verdict, remedy, detail = notifications(pooled)
        assert (verdict, remedy) == ("warn", advice)
        assert "listen_url cannot be reached" in detail
        monkeypatch.setenv("FORGE_LISTEN_URL", url)
        assert notifications(pooled)[:2] == ("ok", None)
        monkeypatch.delenv("FORGE_LISTEN_URL")
        monkeypatch.setenv("FORGE_NOTIFY", "false")
        assert notifications(pooled)[:2] == ("ok", None)
