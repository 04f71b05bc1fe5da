"""Mistakes: each ends with one clear line, the right exit code, and nothing touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .stage import Cli, add, program


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["enqueue", "--queue", "q", "echo", "{bad"], "line 1 column 2"),
        (["enqueue", "--queue", "-rf", "echo", "{}"], "queue name '-rf' is not legal"),
        (["enqueue", "--queue", "", "echo"], "queue name '' is not legal"),
        (["enqueue", "a b"], "kind name 'a b' is not legal"),
        (["enqueue", "echo", ""], "the payload is empty"),
        (["enqueue", "echo", '{"a": NaN}'], "NaN is not JSON"),
        (["enqueue", "echo", '{"a": 1, "a": 2}'], "key 'a' stands twice"),
        (["enqueue", "echo", '"\\ud800"'], "lone surrogate"),
        (["enqueue", "echo", "@nothing.json"], "payload '@nothing.json' cannot be read"),
        (["enqueue", "echo", "--delay", "soon"], "duration 'soon' is not a number"),
        (["enqueue", "echo", "--delay", "5m", "--run-at", "2026-03-01T00:00:00Z"], "not both"),
        (["enqueue", "echo", "--run-at", "2026-03-01T00:00:00"], "has no time zone"),
        (["enqueue", "echo", "--run-at", "tomorrow"], "is not an RFC 3339 instant"),
        (["enqueue", "echo", "--run-at", "2026-13-01T00:00:00Z"], "is not an instant"),
        (["enqueue", "echo", "--priority", "high"], "'high' is not a valid integer"),
        (["enqueue", "echo", "--priority", "1001"], "priority 1001 is not within -1000 … 1000"),
        (["enqueue", "echo", "--max-attempts", "0"], "max_attempts 0 is not within 1 … 1000"),
        (["enqueue", "echo", "--dedupe-key", ""], "dedupe_key '' must be 1 to 255"),
        (["enqueue", "echo", "--unique-for", "1h"], "unique_for needs a dedupe_key"),
        (["enqueue", "echo", "--id", "nope"], "id 'nope' is not a job id"),
        (["enqueue", "echo", "--on-conflict", "explode"], "'explode' is not one of"),
        (["enqueue"], "give the KIND of the job, or --bulk FILE"),
        (["worker", "app:handlers", "--slots", "0"], "0 is not in the range"),
        (["worker", "app:handlers", "--slots", "100000"], "100000 is not in the range"),
        (["worker", "app:handlers", "--slots", "1001", "--queues", "a,b"], "more than 2000 in one process"),
        (["worker", "app:handlers", "--queues", ""], "names no queue"),
        (["worker", "app:handlers", "--queues", "a b"], "queue name 'a b' is not legal"),
        (["worker", "app:handlers", "--drain", "--drain-all"], "not both"),
        (["worker", "app"], "not of the form MODULE:REGISTRY"),
        (["worker", "app.py:handlers"], "give the module: app:handlers"),
        (["worker", "nowhere:handlers"], "there is no module 'nowhere'"),
        (["jobs", "delete", "--status", "done"], "nobody is there to answer"),
        (["jobs", "delete"], "give job ids, or a filter"),
        (["jobs", "retry", "--limit", "5", "--yes"], "give job ids, or a filter"),
        (["jobs", "cancel", "01JH3V7M8Q2X4N5P6R7S8T9VWX", "--queue", "a"], "not both"),
        (["jobs", "list", "--status", "finished"], "'finished' is not one of"),
        (["jobs", "list", "--queue", ""], "queue name '' is not legal"),
        (["jobs", "list", "--limit", "1001"], "1001 is not in the range"),
        (["jobs", "list", "--since", "yesterday"], "or a duration before now"),
        (["queues", "set", "default"], "nothing to change"),
        (["queues", "set", "default", "--max-workers", "many"], "'many' is not a valid integer"),
        (["queues", "set", "default", "--backoff-jitter", "nan"], "must be a number"),
        (["queues", "pause", "a b"], "queue name 'a b' is not legal"),
        (["queues", "delete", "default"], "nobody is there to answer"),
        (["db", "drop"], "give --force"),
        (["db", "reset"], "give --force"),
        (["jbs"], "did you mean 'jobs'"),
        (["jobs", "list", "--statu", "done"], "did you mean"),
        (["--database", "", "jobs", "list"], "is empty"),
        ([], "Usage: forge-jobs"),
    ],
)
def test_a_mistake_ends_with_2_and_makes_no_store(
    here: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert says.lower() in result.err.lower()
    assert result.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "list"],
        ["jobs", "show", "01JH3V7M8Q2X4N5P6R7S8T9VWX"],
        ["jobs", "retry", "--status", "dead", "--yes"],
        ["jobs", "export"],
        ["queues", "list"],
        ["queues", "pause", "default"],
        ["workers"],
        ["doctor"],
        ["db", "status"],
        ["db", "migrate"],
        ["db", "backup", "copy.db"],
        ["db", "drop", "--force"],
        ["db", "reset", "--force"],
    ],
)
def test_a_command_that_only_looks_never_makes_a_database(here: Path, cli: Cli, arguments: list[str]) -> None:
    result = cli("--database", "sqlite:///missing.db", *arguments)
    assert result.code == 1
    assert str(here / "missing.db") in result.err + result.out
    assert list(here.iterdir()) == []


def test_a_database_in_a_directory_that_does_not_exist_is_a_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_DATABASE_URL", "sqlite:////nonexistent/x.db")
    for command in (["jobs", "list"], ["enqueue", "echo"]):
        result = cli(*command)
        assert result.code == 1
        assert "/nonexistent" in result.err
    assert not Path("/nonexistent").exists()


def test_somebody_elses_database_is_left_as_it_is(here: Path, cli: Cli) -> None:
    import sqlite3

    other = sqlite3.connect(here / "other.db")
    other.execute("CREATE TABLE invoices (id INTEGER)")
    other.commit()
    other.close()
    result = cli("--database", "sqlite:///other.db", "jobs", "list")
    assert result.code == 1
    assert "forge-jobs db migrate" in result.err
    tables = sqlite3.connect(here / "other.db").execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("invoices",)]


def test_a_file_that_is_no_database_is_named(here: Path, cli: Cli) -> None:
    (here / "junk.db").write_text("not a database " * 100)
    result = cli("--database", "sqlite:///junk.db", "jobs", "list")
    assert result.code == 1
    assert "damaged or not a database" in result.err


def test_a_fault_shows_its_traceback_only_with_debug() -> None:
    quiet = program("jobs", "list")
    assert quiet.code == 1
    assert quiet.err.startswith("error: there is no database")
    loud = subprocess.run(
        [sys.executable, "-m", "forge_jobs", "jobs", "list", "--debug"], capture_output=True, text=True, check=False
    )
    assert loud.returncode == 1
    assert "Traceback" in loud.stderr


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    for n in range(3):
        add("echo", {"text": "x" * 100_000, "n": n})
    for command in (["jobs", "export"], ["jobs", "export", "--format", "csv"], ["jobs", "list", "--json"]):
        shell = f'"{sys.executable}" -m forge_jobs {" ".join(command)} | head -c 1; echo "${{PIPESTATUS[0]}}"'
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        assert done.stdout[1:].strip() in ("0", "141")
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr


def test_a_closed_stdout_is_no_fault() -> None:
    add()
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m forge_jobs jobs list >&-'], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "1 of 1 jobs\n")


def test_an_ascii_stdout_takes_an_emoji_payload() -> None:
    add("echo", {"mood": "😀 grün"})
    for command in (["jobs", "list"], ["jobs", "list", "--json"], ["jobs", "export"]):
        result = program(*command, LC_ALL="C", PYTHONIOENCODING="ascii")
        assert result.code == 0
        assert result.out.isascii()
        assert "gr\\" in result.out
    assert "😀 grün" in program("jobs", "list", PYTHONIOENCODING="utf-8").out


def test_the_installed_script_and_the_module_are_one_program() -> None:
    script = Path(sys.executable).with_name("forge-jobs")
    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout == program("--version").out
    assert done.stdout.startswith("forge-jobs 0.")
