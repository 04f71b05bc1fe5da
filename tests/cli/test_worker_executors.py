"""Worker processes whose handlers run on threads and in child processes, and workers that end after their share."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from .stage import Cli, add, program, start, status_of, until

CODE = """
import os, time
from pathlib import Path
from forge_jobs import Failed, HandlerRegistry

handlers = HandlerRegistry()

@handlers.handler("plain")
def plain(ctx): ...

@handlers.handler("child", executor="process")
def child(ctx):
    Path("child.pid").write_text(f"{os.getpid()} {ctx.log.info('from the child')}")

@handlers.handler("long", executor="process")
def long(ctx):
    Path("long.pid").write_text(str(os.getpid()))
    time.sleep(60)

@handlers.handler("stuck", timeout=0.1, cancel_grace=0)
def stuck(ctx):
    time.sleep(60)
"""


PLACED = """
import os
from pathlib import Path
from forge_jobs import HandlerRegistry

handlers = HandlerRegistry()

@handlers.handler("where")
def where(payload):
    Path(payload).write_text(str(os.getpid()))

@handlers.handler("parent", executor="async")
async def parent(payload):
    Path(payload).write_text(str(os.getpid()))
"""


@pytest.fixture
def mixed(here: Path) -> Path:
    path = here / "mixed.py"
    path.write_text(CODE)
    return path


def test_a_worker_runs_plain_functions_and_children(mixed: Path) -> None:
    jobs = [add("plain"), add("child")]
    result = program("worker", "mixed:handlers", "--drain")
    assert result.code == 0, result.err
    assert [status_of(job) for job in jobs] == ["done", "done"]
    said = [json.loads(line) for line in result.err.splitlines() if "from the child" in line]
    assert [line["job_id"] for line in said] == [jobs[1]]


@pytest.fixture
def placed(here: Path) -> Path:
    path = here / "placed.py"
    path.write_text(PLACED)
    return path


@pytest.mark.parametrize("how", ["option", "file", "environment"])
def test_a_queue_has_an_executor_of_its_own(
    placed: Path, here: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = []
    match how:
        case "option":
            options = ["--executor", "reports=process"]
        case "file":
            (here / "forge.toml").write_text('[executors]\nreports = "process"\nelsewhere = "process"\n')
        case "environment":
            monkeypatch.setenv("FORGE_EXECUTORS", "reports=process, elsewhere=process")
    for kind, queue in (("parent", "reports"), ("where", "default"), ("where", "reports")):
        add(kind, f"{kind}.{queue}", queue=queue)
    result = program("worker", "placed:handlers", "--queues", "default,reports", *options, "--drain")
    assert result.code == 0, result.err
    worker, plain, child = ((here / name).read_text() for name in ("parent.reports", "where.default", "where.reports"))
    assert worker == plain != child


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--executor", "reports"], 2, "--executor 'reports' must be of the form QUEUE=EXECUTOR"),
        (["--executor", "reports=proces"], 2, "did you mean 'process'?"),
        (["--executor", "report=process"], 2, "did you mean 'reports'?"),
        (["--executor", "reports=async", "--executor", "reports=process"], 2, "twice: async and process"),
        (["--executor", "reports=async"], 2, "the handler for kind 'where' is a plain function"),
    ],
)
def test_an_executor_of_a_queue_that_cannot_be_is_refused(
    placed: Path, options: list[str], code: int, said: str
) -> None:
    result = program("worker", "placed:handlers", "--queues", "default,reports", *options, "--drain")
    assert result.code == code, result.err
    assert said in result.err
    assert "Traceback" not in result.err


def test_an_abandoned_thread_does_not_keep_the_worker(mixed: Path) -> None:
    job = add("stuck", max_attempts=1)
    result = program("worker", "mixed:handlers", "--drain")
    assert result.code == 1
    assert "error: 1 handler would not end; its run was recorded without it, after its timeout" in result.err
    assert "given back" not in result.err
    assert '"reason": "timeout"' in result.err
    assert status_of(job) == "dead"


def test_a_worker_ends_with_0_after_its_share_of_jobs(mixed: Path) -> None:
    jobs = [add("plain") for _ in range(5)]
    result = program("worker", "mixed:handlers", "--max-jobs", "2", "--slots", "1")
    assert result.code == 0, result.err
    assert sorted(status_of(job) for job in jobs) == ["done"] * 2 + ["pending"] * 3
    retiring = [json.loads(line) for line in result.err.splitlines() if '"retiring"' in line]
    assert [(line["why"], line["started"]) for line in retiring] == [("max_jobs", 2)]


def test_a_worker_ends_with_0_when_it_has_grown_too_large(mixed: Path) -> None:
    result = program("worker", "mixed:handlers", "--max-rss-mib", "1")
    assert result.code == 0, result.err
    assert "max_rss_mib" in result.err


def test_a_share_of_no_jobs_is_refused(mixed: Path, cli: Cli) -> None:
    assert cli("worker", "mixed:handlers", "--max-jobs", "0").code == 2


def test_no_child_outlives_a_worker_that_is_killed(mixed: Path, here: Path) -> None:
    add("long")
    process = start("worker", "mixed:handlers")
    try:
        until((here / "long.pid").exists)
        until(lambda: bool((here / "long.pid").read_text()))
        child = int((here / "long.pid").read_text())
        process.send_signal(signal.SIGKILL)
        until(lambda: not Path(f"/proc/{child}").exists())
    finally:
        process.kill()
        process.communicate()
    assert os.getpid() != child
