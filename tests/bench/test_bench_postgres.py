"""The benchmark on PostgreSQL: its schemas are gone whatever ends it, and bare drivers do what they are taken for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from forge_jobs.bench.measure import NOOP, QUEUE, Sizes
from forge_jobs.bench.postgres.clients import FORGE, Client, clients
from forge_jobs.bench.postgres.raw import PostgresRaw
from forge_jobs.bench.postgres.scratch import PostgresScratch
from forge_jobs.bench.raw import tuples
from forge_jobs.bench.scratch import Store
from forge_jobs.cli.bench import bench
from forge_jobs.testing.cluster import until
from forge_jobs.testing.postgres import BINARIES, PROGRAMS

from .test_bench import BENCH, schemas

IN_LINE = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'forge_bench_%' AND query LIKE 'COPY%'"


@pytest.fixture
def scratch(server_url: str, tmp_path: Path) -> Iterator[PostgresScratch]:
    made = PostgresScratch(server_url, tmp_path, Sizes(1), None)
    yield made
    made.close()


@pytest.fixture
def store(scratch: PostgresScratch) -> Iterator[Store]:
    with scratch.store() as made:
        yield made


@pytest.fixture
def raw(scratch: PostgresScratch, store: Store) -> Iterator[PostgresRaw]:
    with scratch.raw(store) as bare:
        yield bare


def answer(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_run_that_is_stopped_in_a_long_statement_drops_its_schemas(
    server_url: str, number: signal.Signals
) -> None:
    argv = [*BENCH, "--backend", "postgres", "--database", server_url, "--only", "claim_at_1m"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        await until(lambda: answer(server_url, IN_LINE), within_s=30, what="a million rows are on their way")
        assert schemas(server_url)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + number, said
    assert schemas(server_url) == []


def test_stores_that_are_kept_are_dropped_at_the_end(scratch: PostgresScratch, server_url: str) -> None:
    fills: list[str] = []
    first = scratch.once("some", lambda raw: fills.append("filled"))
    assert scratch.once("some", lambda raw: fills.append("filled")) == first
    assert fills == ["filled"]
    assert schemas(server_url) == [first.schema]
    scratch.close()
    assert schemas(server_url) == []


def test_a_server_is_started_where_none_is_configured_and_keeps_what_it_commits(tmp_path: Path) -> None:
    argv = [*BENCH, "--backend", "postgres", "--only", "enqueue_one", "--jobs", "100", "--repeat", "1", "--json"]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    environment = json.loads(run.stdout)["environment"]
    assert environment["settings"] == {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    assert environment["where"].startswith("a throw-away server in ")


def test_without_the_driver_one_line_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None; from forge_jobs.cli.main import main; "
        "sys.exit(main(['bench', '--backend', 'postgres']))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stderr == "error: PostgreSQL needs its driver: pip install 'forge-jobs[postgres]'\n"


def test_without_a_server_one_line_says_so(tmp_path: Path) -> None:
    for name in PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\necho not a server\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, BINARIES: str(tmp_path)}
    run = subprocess.run([*BENCH, "--backend", "postgres"], capture_output=True, text=True, timeout=60, env=environment)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert run.stderr.count("\n") == 1
    assert "--database" in run.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ["--backend", "postgres", "--database", "sqlite:///jobs.db"],
        ["--database", "postgresql://postgres@127.0.0.1/jobs"],
        ["--backend", "postgres", "--dir", "."],
        ["--backend", "postgres", "--only", "raw_drain_16col"],
        ["--only", "claim_after_churn"],
    ],
    ids=" ".join,
)
def test_options_of_the_other_backend_are_refused(argv: list[str]) -> None:
    result = CliRunner().invoke(bench, argv)
    assert result.exit_code == 2
    assert "Invalid value for --" in result.output


def test_every_driver_adds_takes_and_finishes_the_same_jobs(store: Store, raw: PostgresRaw) -> None:
    async def work(client: Client, statement: str) -> list[object]:
        jobs = tuples(3)
        match statement:
            case "insert":
                await client.many("insert", jobs)
            case "insert_arrays":
                await client.rows("insert_arrays", *(list(column) for column in zip(*jobs, strict=True)))
            case "insert_json":
                await client.rows("insert_json", json.dumps(jobs))
        now = jobs[0][4]
        claimed = await client.rows("claim", now, QUEUE, NOOP, 2)
        await client.rows("finalize", now, [row[0] for row in claimed])
        rest = await client.rows("claim", now, QUEUE, NOOP, 100)
        await client.rows("finalize", now, [row[0] for row in rest])
        return [sorted(row[0] for row in claimed) == [job[0] for job in jobs[:2]], [tuple(r)[1:] for r in rest]]

    async def each() -> list[object]:
        found: list[object] = []
        for kind in clients():
            for statement in ("insert", "insert_arrays", "insert_json"):
                client = await kind.connect(store.url, store.schema)
                try:
                    found.append(await work(client, statement))
                finally:
                    await client.close()
        return found

    found = asyncio.run(each())
    assert len(found) == 6
    assert all(one == [True, [(NOOP, tuples(1)[0][3], 1, 5, 1)]] for one in found)
    assert raw.done_span()[0] == 18


def test_rates_are_of_as_many_jobs_as_they_say(raw: PostgresRaw) -> None:
    assert raw.drain_rate(250, 100) > 0
    assert raw.done_span()[0] == 250
    assert raw.insert_rate(250, 100) > 0
    assert raw.drain_rate(10, 1) > 0
    assert raw.done_span()[0] == 10, "every rate begins with an empty table"


def test_bare_sql_finds_jobs_in_claim_order_by_the_index(store: Store, raw: PostgresRaw) -> None:
    raw.fill(20_000)
    raw.fill(2_000, future=True)
    explain = f"SET search_path TO {store.schema}; PREPARE claim AS {FORGE['claim']}"
    with psycopg.connect(store.url, autocommit=True) as connection:
        connection.execute(explain.encode())
        connection.execute("SET plan_cache_mode = force_generic_plan")
        rows = connection.execute("EXPLAIN EXECUTE claim (9e15::bigint, 'bench', 'noop', 100)").fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "Index Scan using jobs_ready" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
