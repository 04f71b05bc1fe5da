"""How it looks: on a terminal, in a pipe, and how fast it says what it can do."""

from __future__ import annotations

import os
import pty
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from forge_jobs.cli import output
from forge_jobs.cli.main import COMMANDS
from forge_jobs.cli.output import Column

from .stage import Cli, add, start, status_of, until


def on_terminal(*arguments: str, answer: str = "", **environment: str) -> tuple[int, str]:
    """Run the program on a terminal of 100 columns; its exit code and everything it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "forge_jobs", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8", **environment},
    )
    os.close(theirs)
    shown = b""
    if answer:
        while b"[y/N]" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, f"{answer}\n".encode())
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(timeout=30), shown.decode().replace("\r\n", "\n")


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_colours_and_a_pipe_does_not(cli: Cli) -> None:
    add("echo", {"text": "[bold]not markup[/bold] \x1b[31m"})
    code, shown = on_terminal("jobs", "list")
    assert code == 0
    assert "\x1b[34mpending" in shown
    assert "\x1b[31m" not in shown
    assert "[bold]not markup[/bold]" not in cli("jobs", "list", "--kind", "none").out
    assert "[bold]no" in without_colour(shown)
    assert "\x1b" not in cli("jobs", "list").out


def test_no_color_and_a_dumb_terminal_get_plain_text() -> None:
    add()
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        for command in (["jobs", "list"], ["queues", "list"], ["doctor"], ["jobs", "--help"]):
            _, shown = on_terminal(*command, **environment)
            assert "\x1b" not in shown, command


def test_a_narrow_terminal_loses_no_id() -> None:
    job_id = add("echo", {"text": "x" * 200})
    _, shown = on_terminal("jobs", "list", COLUMNS="60")
    assert job_id in without_colour(shown)


def test_a_bulk_verb_asks_on_a_terminal() -> None:
    job = add()
    code, shown = on_terminal("jobs", "cancel", "--queue", "default", answer="n")
    assert code == 1
    assert "1 job matches (1 pending)" in shown
    assert "Cancel it? [y/N]" in shown
    assert status_of(job) == "pending"
    code, shown = on_terminal("jobs", "cancel", "--queue", "default", answer="y")
    assert code == 0
    assert "cancelled 1" in shown
    assert status_of(job) == "dead"


def test_every_command_has_help_with_an_example(cli: Cli) -> None:
    for name in COMMANDS:
        result = cli(name, "--help")
        assert result.code == 0
        assert "Example" in result.out, name
    for group, commands in {
        "jobs": ("list", "show", "retry", "cancel", "delete", "run-now", "tail", "export"),
        "queues": ("list", "set", "pause", "resume", "clear-cool-down", "delete"),
        "db": ("create", "migrate", "status", "drop", "reset", "sql", "backup"),
    }.items():
        for command in commands:
            result = cli(group, command, "--help")
            assert result.code == 0
            assert "Example:" in result.out, command
            assert f"forge-jobs {group} {command}" in result.out or group == "db"


def test_help_on_a_terminal_is_drawn() -> None:
    code, shown = on_terminal("--help")
    assert code == 0
    assert "╭─ Commands ─" in without_colour(shown)
    for name in COMMANDS:
        assert name in shown


def test_help_imports_neither_the_runtime_nor_the_storage() -> None:
    code = (
        "import sys\nfrom forge_jobs.cli.main import run\nrun(['--help'])\n"
        "heavy = ('asyncio', 'sqlite3', 'msgspec', 'ulid', 'structlog', 'forge_jobs.storage', 'forge_jobs.runtime')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_help_comes_quickly() -> None:
    def once() -> float:  # processor time: what else the machine does must not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "forge_jobs", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.25


# The parts


def test_a_plain_table_is_aligned_also_with_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([Column("name"), Column("n", right=True)], [("漢字", 1), ("ab\n", 22), (None, True)])
    assert capsys.readouterr().out == "NAME    N\n漢字    1\nab\\n   22\n-     yes\n"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (59, "59s"), (60, "1m 0s"), (3_725, "1h 2m"), (90_000, "1d 1h"), (-3, "-3.0s")],
)
def test_ages(seconds: float, shown: str) -> None:
    from datetime import timedelta

    assert output.age(timedelta(seconds=seconds)) == shown


def test_json_escapes_what_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    value = {"text": "a\x1b\x7f\x9b\u202e\U000e0001 é漢"}
    output.document(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert "é漢" in shown
    assert all(c == "\n" or c.isprintable() for c in shown)


def test_ctrl_c_ends_a_command_and_is_no_error(cli: Cli) -> None:
    job = add("echo", {})
    (path,) = Path.cwd().glob("*.db")
    with closing(sqlite3.connect(path)) as connection:  # no worker that could answer has it
        connection.execute(
            "UPDATE forge_jobs SET status = 'in_progress', ready = NULL, process_id = 'w', host_id = 'h'"
        )
        connection.commit()
    process = start("jobs", "show", job, "--stack")
    until(lambda: any(link.resolve() == path for link in Path(f"/proc/{process.pid}/fd").iterdir()))
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=20)[0], process.returncode) == ("", 130)
