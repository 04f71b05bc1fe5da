"""Worker processes, run for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .stage import Cli, Result, Start, add, program, start, status_of, until


def end(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=30)
    talk = [line for line in err.splitlines() if not line.startswith("{")]  # a fault is logged with its traceback
    assert not any("Traceback" in line for line in talk)
    return Result(process.returncode, out, err)


def events(result: Result) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    return {line["event"]: line for line in found}


def test_drain_runs_what_is_ready_and_leaves_the_rest(app: Path) -> None:
    ready, failing, later = add(payload={"n": 1}), add("fail", {"message": "token=abc"}), add(delay=3600)
    result = program("worker", "app:handlers", "--drain", "--name", "blue")
    assert result.code == 0
    assert [status_of(id) for id in (ready, failing, later)] == ["done", "failed", "pending"]
    (line,) = result.lines
    assert f"store sqlite:///{app.parent}/forge-jobs.db; queues default; kinds echo, fail, slow, stubborn" in line
    seen = events(result)
    assert seen["worker_started"]["worker"] == "blue"
    assert seen["shutdown_done"]["finished"] == 2
    assert seen["job_failed"]["error"] == "token=[redacted]"
    assert seen["job_failed"]["attempt"] == 1
    assert all(line.startswith("{") for line in result.err.splitlines())


def test_drain_all_waits_for_later_jobs_too(app: Path) -> None:
    later = add(delay=1)
    assert program("worker", "app:handlers", "--drain-all").code == 0
    assert status_of(later) == "done"


def test_a_worker_serves_the_queues_it_is_told_and_makes_the_store(app: Path) -> None:
    result = program("worker", "app:handlers", "--queues", "a, b,a", "--drain")
    assert result.code == 0
    assert "queues a, b; kinds" in result.out
    assert "queues c; kinds" in program("worker", "app:handlers", "--drain", FORGE_QUEUES="c").out


def test_sigterm_gives_handlers_their_grace_and_hands_jobs_back(worker: Start, here: Path) -> None:
    job = add("slow")
    process = worker("--grace", "0.5s")
    until((here / "slow-began").exists)
    process.send_signal(signal.SIGTERM)
    result = end(process)
    assert result.code == 0
    assert events(result)["shutdown_done"]["released"] == 1
    assert status_of(job) == "pending"


def test_a_second_signal_ends_handlers_at_once(worker: Start, here: Path) -> None:
    job = add("slow")
    process = worker("--grace", "60s")
    until((here / "slow-began").exists)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process).code == 0
    assert time.monotonic() - began < 10
    assert status_of(job) == "pending"


def test_a_third_signal_ends_the_process(worker: Start, here: Path) -> None:
    add("stubborn")
    process = worker("--grace", "60s")
    until((here / "stubborn-began").exists)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert end(process).code == 1


def test_abandoned_work_is_exit_code_1(worker: Start, here: Path) -> None:
    job = add("stubborn")
    process = worker("--grace", "0.2s")
    until((here / "stubborn-began").exists)
    process.send_signal(signal.SIGTERM)
    result = end(process)
    assert result.code == 1
    assert "error: 1 handler would not end; its job was given back" in result.err
    assert status_of(job) == "pending"


def test_a_handler_that_blocks_the_loop_cannot_keep_the_process(app: Path, worker: Start, here: Path) -> None:
    app.write_text(app.read_text().replace("await asyncio.sleep(60)", "__import__('time').sleep(60)", 1))
    add("slow")
    process = worker("--grace", "60s")
    until((here / "slow-began").exists)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert end(process).code == 1


def test_a_thread_that_does_not_end_cannot_keep_the_process(app: Path, worker: Start, here: Path) -> None:
    app.write_text(
        app.read_text().replace("await asyncio.sleep(60)", "await asyncio.to_thread(__import__('time').sleep, 60)", 1)
    )
    add("slow")
    process = worker("--grace", "0.2s")
    until((here / "slow-began").exists)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    end(process)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        ("handlers = 1", "app:handlers", "app:handlers is a int, not a HandlerRegistry"),
        ("from forge_jobs import HandlerRegistry as H", "app:H", "app:H is the class HandlerRegistry"),
        (
            "from forge_jobs import HandlerRegistry\nmine = HandlerRegistry()",
            "app:handlers",
            "it has the registry mine",
        ),
        ("import nothing_like_it", "app:handlers", "importing app failed: ModuleNotFoundError"),
        ("1 / 0", "app:handlers", "importing app failed: ZeroDivisionError: division by zero (app.py, line 1)"),
        ("def f(:", "app:handlers", "importing app failed: SyntaxError"),
        ("raise SystemExit(0)", "app:handlers", "importing app failed: SystemExit"),
        (
            "from forge_jobs import HandlerRegistry\nh = HandlerRegistry()\n@h.handler('x')\ndef f(a, b, c): ...",
            "app:h",
            "the handler for kind 'x'",
        ),
    ],
)
def test_what_is_no_registry_ends_with_2_and_makes_no_store(here: Path, text: str, target: str, says: str) -> None:
    (here / "app.py").write_text(text)
    result = program("worker", target, "--drain")
    assert result.code == 2
    assert says in result.err
    assert not (here / "forge-jobs.db").exists()


def test_a_registry_is_found_in_packages_and_inside_objects(here: Path, app: Path) -> None:
    (here / "pack").mkdir()
    (here / "pack" / "__init__.py").touch()
    app.rename(here / "pack" / "jobs.py")
    (here / "other.py").write_text("import pack.jobs as inner")
    assert program("worker", "pack.jobs:handlers", "--drain").code == 0
    assert program("worker", "other:inner.handlers", "--drain").code == 0


def test_a_store_that_goes_away_is_exit_code_1(worker: Start, here: Path) -> None:
    process = worker()
    assert process.stdout is not None
    process.stdout.readline()
    os.rename(here / "forge-jobs.db", here / "moved.db")
    (here / "forge-jobs.db").write_bytes(b"")
    add("echo")
    assert end(process).code == 1


def test_workers_lists_who_works_and_what_nobody_serves(worker: Start, cli: Cli) -> None:
    nobody = cli("workers")
    assert nobody.code == 1
    process = worker("--name", "blue", "--slots", "3")
    assert process.stdout is not None
    process.stdout.readline()
    add("unheard-of")
    add(queue="elsewhere")
    until(lambda: cli("workers", "--json").json["items"][0]["slots"] == {"default": 3})
    page = cli("workers", "--json").json
    (row,) = page["items"]
    assert (row["worker"], row["pid"], row["state"], row["queues"]) == ("blue", process.pid, "running", ["default"])
    assert row["kinds"] == ["echo", "fail", "slow", "stubborn"]
    assert (row["shares"], row["offered"]) == ({}, {"default": 3})
    assert page["unserved"] == [
        {"queue": "default", "kind": "unheard-of", "jobs": 1},
        {"queue": "elsewhere", "kind": None, "jobs": 1},
    ]
    table = cli("workers")
    assert table.lines[1].split()[0] == "blue"
    assert "kind unheard-of of queue default has no handler" in table.err
    assert "queue elsewhere has no live worker; 1 job waits" in table.err

    cli("queues", "set", "default", "--max-workers", "5")
    until(lambda: cli("workers", "--json").json["items"][0]["shares"] == {"default": 3})
    assert "default 3/3" in cli("workers").lines[1]
    queue = next(item for item in cli("queues", "list", "--json").json["items"] if item["name"] == "default")
    assert queue["shares"] == [{"host_id": row["host_id"], "share": 3, "open": 3}]
    assert queue["unassigned"] == 2
    assert cli("queues", "list").lines[1].split()[-4:] == ["3", "5", "(2", "unassigned)"]

    for verb in ("drop", "reset"):
        refused = cli("db", verb, "--force")
        assert refused.code == 1
        assert f"live workers: blue (pid {process.pid})" in refused.err
    refused = cli("queues", "delete", "default", "--yes")
    assert refused.code == 1
    doctor = cli("doctor", "--json")
    assert doctor.code == 0
    checks = [(check["verdict"], check["detail"]) for check in doctor.json["checks"] if check["name"] == "unserved"]
    assert [verdict for verdict, _ in checks] == ["warn", "warn"]
    process.send_signal(signal.SIGTERM)
    assert end(process).code == 0
    assert cli("workers", "--json").json["items"] == []


def test_tail_follows_until_ctrl_c(app: Path) -> None:
    add("other")
    process = start("jobs", "tail", "--kind", "echo", "--jsonl")
    assert process.stderr is not None
    assert "Ctrl-C ends it" in process.stderr.readline()
    job = add("echo")
    add("other")
    program("worker", "app:handlers", "--drain")
    assert process.stdout is not None
    seen = [json.loads(process.stdout.readline()) for _ in range(4)]
    assert sorted((one["type"], one["job_id"]) for one in seen) == [
        ("completed", job),
        ("enqueued", job),
        ("log", job),
        ("started", job),
    ]
    process.send_signal(signal.SIGINT)
    assert end(process) == Result(0, "", "")


def test_tail_counts_what_comes_too_fast_to_list(app: Path, here: Path, cli: Cli) -> None:
    cli("db", "create")
    process = start("jobs", "tail", "--jsonl")
    assert process.stderr is not None
    process.stderr.readline()
    (here / "jobs.jsonl").write_text('{"kind": "echo"}\n' * 3_000)
    assert program("enqueue", "--bulk", "jobs.jsonl").code == 0
    assert process.stdout is not None
    told = 0
    while told < 3_000:
        told += json.loads(process.stdout.readline())["count"]
    process.send_signal(signal.SIGINT)
    assert (told, end(process)) == (3_000, Result(0, "", ""))


LOGGING_APP = """
import logging
from forge_jobs import HandlerRegistry

handlers = HandlerRegistry()
app = logging.getLogger("app")
app.info("at import")

@handlers.handler("talk")
async def talk(ctx, payload):
    ctx.log.info("by ctx")
    app.info("token=abc \x1b[2J")
    app.debug("too quiet")
    try:
        1 / 0
    except ZeroDivisionError:
        app.exception("broke")
"""


def test_what_a_job_logged_is_printed_with_its_fields_and_shown_with_the_job(here: Path, cli: Cli) -> None:
    (here / "app.py").write_text(LOGGING_APP)
    job = add("talk")
    result = end(start("worker", "app:handlers", "--drain"))
    lines = [json.loads(line) for line in result.err.splitlines()]
    of_job = [line for line in lines if line.get("job_id") == job]
    assert [line["event"] for line in of_job] == ["by ctx", "token=[redacted] \x1b[2J", "broke"]
    assert {(line["kind"], line["queue"], line["attempt"], line["fence"]) for line in of_job} == {
        ("talk", "default", 1, 1)
    }
    assert "ZeroDivisionError" in of_job[2]["exception"]
    shown = cli("jobs", "show", job, "--json").json["log"]
    assert [(one["level"], one["logger"]) for one in shown] == [
        ("INFO", "forge_jobs.job"),
        ("INFO", "app"),
        ("ERROR", "app"),
    ]
    plain = cli("jobs", "show", job).out
    assert "INFO        token=[redacted] \\x1b[2J\n" in plain
    assert "\x1b" not in plain
    assert "    ZeroDivisionError: division by zero\n" in plain


def test_a_job_is_followed_from_its_beginning_to_its_end(here: Path, cli: Cli) -> None:
    (here / "app.py").write_text(LOGGING_APP)
    job, other = add("talk"), add("talk", delay=60)
    process = start("jobs", "tail", "--id", job)
    end(start("worker", "app:handlers", "--drain"))
    result = end(process)
    assert result.code == 0
    words = [line.split("  ")[1].strip() for line in result.lines if job in line]
    assert words == ["enqueued", "started", "INFO", "INFO", "ERROR", "completed"]
    assert other not in result.out
    assert "\x1b" not in result.out
    again = cli("jobs", "tail", "--id", job, "--json")
    assert [json.loads(line)["type"] for line in again.lines].count("log") == 3


def test_there_is_nothing_to_follow_of_an_unknown_job(cli: Cli) -> None:
    cli("db", "create")
    result = cli("jobs", "tail", "--id", "01JH3V7M8Q2X4N5P6R7S8T9VWX")
    assert result.code == 1
    assert "there is no job 01JH3V7M8Q2X4N5P6R7S8T9VWX" in result.err


def test_a_program_that_sets_up_logging_itself_is_left_to_it(here: Path) -> None:
    own = "import logging; logging.basicConfig(level=logging.INFO, format='own %(message)s')\n"
    (here / "app.py").write_text(own + LOGGING_APP.replace("exception(", "error("))
    add("talk")
    result = end(start("worker", "app:handlers", "--drain"))
    assert [line for line in result.err.splitlines() if line.startswith("own ")] == [
        "own at import",
        "own token=abc \x1b[2J",
        "own broke",
    ]


def test_a_worker_whose_resource_cannot_be_made_says_so_and_ends(app: Path) -> None:
    job = add()
    app.write_text(app.read_text() + FAILING_LIFESPAN)
    result = end(start("worker", "app:handlers"))
    assert result.code == 1
    assert "error: resource 'database' could not be made: OSError: connection refused\n" in result.err
    assert status_of(job) == "pending"


def test_a_worker_with_a_handler_of_an_unknown_resource_does_not_start(app: Path) -> None:
    app.write_text(app.read_text() + UNKNOWN_RESOURCE)
    result = end(start("worker", "app:handlers", "--drain"))
    assert result.code == 2
    assert "error: the handler for kind 'needy' takes the resource 'database', which no @handlers" in result.err


FAILING_LIFESPAN = """
@handlers.lifespan
async def database():
    raise OSError("connection refused")
    yield
"""
UNKNOWN_RESOURCE = """
@handlers.handler("needy")
async def needy(ctx, *, database): ...
"""
