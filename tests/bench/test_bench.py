"""The benchmark in miniature: every number is taken, and the document it prints is whole."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from forge_jobs.bench.measure import Goal, Measure, Number, Sample, Samples, Sizes, Target, percentile
from forge_jobs.bench.measures import names_on
from forge_jobs.bench.run import _result
from forge_jobs.bench.scratch import Scratch, Store
from forge_jobs.bench.sqlite.raw import FORGE, connect
from forge_jobs.bench.sqlite.scratch import SqliteScratch
from forge_jobs.cli.bench import bench
from forge_jobs.storage.open import Backend, sqlite_path

BENCH = [sys.executable, "-m", "forge_jobs", "bench"]
LIMITED = {
    Backend.SQLITE: {
        "drain",
        "drain_10",
        "drain_2p",
        "enqueue_one",
        "enqueue_concurrent",
        "enqueue_bulk",
        "claim_at_1m",
        "claim_future_band",
        "claim_blocked",
        "claim_during_purge",
    },
    Backend.POSTGRESQL: {
        "drain",
        "drain_2p",
        "enqueue_one",
        "enqueue_concurrent",
        "enqueue_bulk",
        "claim_at_1m",
        "claim_future_band",
        "claim_blocked",
        "claim_after_churn",
        "claim_during_purge",
    },
}


@dataclass(frozen=True, slots=True)
class TinyRun:
    """A run in miniature, and what is left where its stores were."""

    backend: Backend
    process: subprocess.CompletedProcess[str]
    where: str
    left: list[str]

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.process.stdout)
        return document


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Backend.SQLITE, id="sqlite"),
        pytest.param(Backend.POSTGRESQL, id="postgresql", marks=pytest.mark.slow),
    ],
)
def tiny_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Each backend's run. About 8 s on SQLite, 12 s on PostgreSQL."""
    argv = [*BENCH, "--jobs", "300", "--repeat", "1", "--json"]
    if request.param is Backend.SQLITE:
        folder = tmp_path_factory.mktemp("scratch")
        process = subprocess.run([*argv, "--dir", str(folder)], capture_output=True, text=True, timeout=110)
        return TinyRun(request.param, process, str(folder), [path.name for path in folder.iterdir()])
    url = request.getfixturevalue("server_url")
    argv += ["--backend", "postgres", "--database", url]
    process = subprocess.run(argv, capture_output=True, text=True, timeout=110)
    return TinyRun(request.param, process, url.partition("@")[2], schemas(url))


def schemas(url: str) -> list[str]:
    """The scratch schemas there are."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(r"SELECT nspname FROM pg_namespace WHERE nspname LIKE 'forge\_bench\_%'").fetchall()
    return [name for (name,) in rows]


def test_a_tiny_run_gives_every_number_with_its_limit_and_ratio(tiny_run: TinyRun) -> None:
    assert tiny_run.process.returncode == 0, tiny_run.process.stderr
    results: dict[str, dict[str, Any]] = {result["name"]: result for result in tiny_run.document["results"]}
    assert tuple(results) == names_on(tiny_run.backend)
    for name, result in results.items():
        assert result["backend"] == tiny_run.backend.value
        assert result["error"] is None
        assert math.isfinite(result["value"])
        assert result["value"] >= 0
        assert result["unit"] in {"jobs/s", "ms", "MiB", "%", "statements"}
        assert len(result["samples"]) == 1
        if name in LIMITED[tiny_run.backend]:
            assert result["limit"] > 0
            assert result["ratio"] == pytest.approx(result["value"] / result["limit"], rel=0.01)
        else:
            assert result["limit"] is result["ratio"] is None


def test_a_run_tells_its_machine_versions_and_durability(tiny_run: TinyRun) -> None:
    environment = tiny_run.document["environment"]
    versions = {"forge-jobs", "msgspec", "python"}
    assert environment["backend"] == tiny_run.backend.value
    # The server of the tests has synchronous_commit off, and a run says so.
    assert environment["durability"] == ("full" if tiny_run.backend is Backend.SQLITE else "process")
    assert environment["where"] == tiny_run.where
    assert environment["cores"] >= 1
    assert (environment["jobs"], environment["repeat"]) == (300, 1)
    if tiny_run.backend is Backend.SQLITE:
        assert set(environment["versions"]) == versions | {"sqlite"}
        assert environment["settings"] == {"synchronous": "FULL"}
    else:
        assert set(environment["versions"]) == versions | {"postgresql", "psycopg", "asyncpg"}
        # The server of these tests does not wait for its disk, and the run says so.
        assert environment["settings"] == {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def test_a_run_leaves_nothing_behind_and_tells_its_progress_in_lines(tiny_run: TinyRun) -> None:
    assert tiny_run.left == []
    assert "\x1b" not in tiny_run.process.stderr
    for name in names_on(tiny_run.backend):
        assert f"{name} #1: " in tiny_run.process.stderr


def test_only_the_named_numbers_are_taken_and_a_table_is_printed(tmp_path: Path) -> None:
    argv = ["--only", "pickup_p99,raw_enqueue_16col", "--jobs", "100", "--repeat", "1", "--dir", str(tmp_path)]
    result = CliRunner().invoke(bench, argv)
    assert result.exit_code == 0, result.output
    assert "durability full" in result.stdout
    rows = [line.split()[0] for line in result.stdout.splitlines() if line.startswith(("pickup", "raw", "drain"))]
    assert rows == ["raw_enqueue_16col", "pickup_p99"]


def test_a_name_that_no_measure_has_is_refused_with_the_names_there_are() -> None:
    result = CliRunner().invoke(bench, ["--only", "drian"])
    assert result.exit_code == 2
    assert "drian" in result.output
    assert "enqueue_bulk" in result.output


def test_a_measure_that_fails_is_told_and_makes_the_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")  # worker processes end at once
    argv = ["--only", "drain,raw_enqueue_16col", "--jobs", "100", "--repeat", "1", "--json", "--dir", str(tmp_path)]
    result = CliRunner().invoke(bench, argv)
    assert result.exit_code == 1
    failed, other = json.loads(result.stdout)["results"]
    assert failed["name"] == "drain"
    assert failed["value"] is None
    assert "exit code 1" in failed["error"]
    assert other["value"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_terminated_leaves_nothing_behind(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "forge_jobs", "bench", "--only", "drain", "--dir", str(tmp_path)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "median of" not in process.stderr.readline():
        pass
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_result_is_the_median_of_its_samples_and_their_limits() -> None:
    number = Number("n", "jobs/s", sqlite=Goal(Target(bound=0.5)))
    rounds: list[Samples] = [{"n": Sample(3.0, 10.0)}, {"n": Sample(9.0, 30.0)}, {"n": Sample(6.0, 20.0)}]
    result = _result(number, Backend.SQLITE, rounds, None)
    assert (result.value, result.limit, result.ratio, result.met) == (6.0, 20.0, 0.3, False)
    assert (result.samples, result.limit_samples) == ([3.0, 9.0, 6.0], [10.0, 30.0, 20.0])


def test_a_limit_is_taken_right_before_its_number_and_is_that_of_the_backend(tmp_path: Path) -> None:
    taken: list[str] = []

    def noting(name: str, value: float) -> Callable[[Scratch], float]:
        return lambda _: taken.append(name) or value  # type: ignore[func-returns-value]

    number = Number("n", "jobs/s", Goal(limit=noting("sqlite", 2.0)), Goal(limit=noting("postgres", 3.0)))
    measure = Measure((number,), lambda scratch: {"n": Sample(noting("value", 1.0)(scratch))})
    assert measure.sample(SqliteScratch(tmp_path, Sizes(1))) == {"n": Sample(1.0, 2.0)}
    assert taken == ["sqlite", "value"]


def test_bare_sql_finds_jobs_in_claim_order_by_the_index(tmp_path: Path) -> None:
    with SqliteScratch(tmp_path, Sizes(1)).store() as store:
        connection = connect(sqlite_path(store.url))
        plan = connection.execute("EXPLAIN QUERY PLAN " + FORGE["claim"], (1, 1, "bench", "noop", 1, 100)).fetchall()
        connection.close()
    steps = [row[3] for row in plan]
    assert any("forge_jobs_ready (queue=? AND kind=?)" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)


def test_bare_sql_is_as_durable_as_the_store(tmp_path: Path) -> None:
    connection = connect(str(tmp_path / "plain.db"))
    settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    connection.close()
    assert settings == ["wal", 2]


def test_a_worker_finds_its_store_where_only_its_user_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_SLOTS", "3")
    store = Store("postgresql://me:secret@db/jobs", "forge_bench_1")
    assert Store.of_environment(store.environment) == store
    assert "FORGE_SLOTS" not in store.environment, "settings of another store would be measured"


def test_percentiles_are_nearest_ranks() -> None:
    hundred = [float(n) for n in range(100, 0, -1)]
    assert [percentile(hundred, p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 99) == 7.0
