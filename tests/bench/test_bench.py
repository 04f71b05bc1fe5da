"""The benchmark in miniature: every number is taken, and the document it prints is whole."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from forge_jobs.bench import raw
from forge_jobs.bench.measure import Number, Sample, Samples, Sizes, Target, percentile
from forge_jobs.bench.measures import NAMES
from forge_jobs.bench.run import _result
from forge_jobs.bench.scratch import Scratch
from forge_jobs.cli.bench import bench

LIMITED = {
    "drain",
    "drain_10",
    "drain_2p",
    "enqueue_one",
    "enqueue_concurrent",
    "enqueue_bulk",
    "claim_at_1m",
    "claim_future_band",
}


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("scratch")
    argv = [sys.executable, "-m", "forge_jobs", "bench", "--jobs", "300", "--repeat", "1", "--json"]
    return subprocess.run([*argv, "--dir", str(folder)], capture_output=True, text=True, timeout=110), folder


def test_a_tiny_run_gives_every_number_with_its_limit_and_ratio(
    tiny_run: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    process, _ = tiny_run
    assert process.returncode == 0, process.stderr
    results: dict[str, dict[str, Any]] = {result["name"]: result for result in json.loads(process.stdout)["results"]}
    assert tuple(results) == NAMES
    for name, result in results.items():
        assert result["backend"] == "sqlite"
        assert result["error"] is None
        assert math.isfinite(result["value"])
        assert result["value"] >= 0
        assert result["unit"] in {"jobs/s", "ms", "MiB", "%"}
        assert len(result["samples"]) == 1
        if name in LIMITED:
            assert result["limit"] > 0
            assert result["ratio"] == pytest.approx(result["value"] / result["limit"], rel=0.01)
        else:
            assert result["limit"] is result["ratio"] is None


def test_a_run_tells_its_machine_versions_and_durability(
    tiny_run: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    process, folder = tiny_run
    environment = json.loads(process.stdout)["environment"]
    assert environment["durability"] == "full"
    assert environment["synchronous"] == "FULL"
    assert environment["directory"] == str(folder)
    assert environment["cores"] >= 1
    assert set(environment["versions"]) == {"forge-jobs", "msgspec", "python", "sqlite"}
    assert (environment["jobs"], environment["repeat"]) == (300, 1)


def test_a_run_leaves_nothing_behind_and_tells_its_progress_in_lines(
    tiny_run: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    process, folder = tiny_run
    assert list(folder.iterdir()) == []
    assert "\x1b" not in process.stderr
    for name in NAMES:
        assert f"{name} #1: " in process.stderr


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
    number = Number("n", "jobs/s", Target(bound=0.5))
    rounds: list[Samples] = [{"n": Sample(3.0, 10.0)}, {"n": Sample(9.0, 30.0)}, {"n": Sample(6.0, 20.0)}]
    result = _result(number, "sqlite", rounds, None)
    assert (result.value, result.limit, result.ratio, result.met) == (6.0, 20.0, 0.3, False)
    assert (result.samples, result.limit_samples) == ([3.0, 9.0, 6.0], [10.0, 30.0, 20.0])


def test_bare_sql_finds_jobs_in_claim_order_by_the_index(tmp_path: Path) -> None:
    with Scratch(tmp_path, Sizes(1)).store() as database:
        connection = raw.connect(database)
        plan = connection.execute("EXPLAIN QUERY PLAN " + raw.FORGE["claim"], (1, "bench", "noop", 100)).fetchall()
        connection.close()
    steps = [row[3] for row in plan]
    assert any("forge_jobs_ready (queue=? AND kind=?)" in step for step in steps)
    assert not any("TEMP B-TREE" in step for step in steps)


def test_bare_sql_is_as_durable_as_the_store(tmp_path: Path) -> None:
    connection = raw.connect(tmp_path / "plain.db")
    settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    connection.close()
    assert settings == ["wal", 2]


def test_percentiles_are_nearest_ranks() -> None:
    hundred = [float(n) for n in range(100, 0, -1)]
    assert [percentile(hundred, p) for p in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([7.0], 99) == 7.0
