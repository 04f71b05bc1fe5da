"""The same commands on a PostgreSQL server, and what they say of one that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from forge_jobs.testing.postgres import Server
from forge_jobs.testing.throwaway import reserved_port

from .stage import Cli, program


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    made = server.new_database()
    yield made
    server.drop_database(made)


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
