"""`worker --reload`: real files that change under a real worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .stage import Start, add, status_of, until

SOURCE = """
import asyncio, os, pathlib
from forge_jobs import HandlerRegistry

handlers = HandlerRegistry()

@handlers.handler("echo")
async def echo(payload):
    pathlib.Path("said").write_text({word!r})

@handlers.handler("slow")
async def slow(payload):
    pathlib.Path("slow-began").touch()
    await asyncio.sleep({seconds})

pathlib.Path("pid").write_text(str(os.getpid()))
"""


def write(folder: Path, word: str, *, seconds: float = 60) -> None:
    """Another version of the application. Words differ in length, so that no stale bytecode is used."""
    (folder / "app.py").write_text(SOURCE.format(word=word, seconds=seconds))


def says(word: str) -> bool:
    path = Path("said")
    return path.exists() and path.read_text() == word


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def said_until(process: subprocess.Popen[str], word: str) -> Iterator[str]:
    """What the program prints up to a line with that word."""
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        if word in line:
            return
    raise AssertionError(f"it ended without saying {word}")


def end(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=20)
    assert process.returncode == 0, talk
    assert "Traceback" not in talk
    return talk


def test_a_worker_runs_what_the_files_say_now(here: Path, worker: Start) -> None:
    write(here, "one")
    process = worker("--reload")
    add("echo")
    until(lambda: says("one"))
    write(here, "eleven")
    until(lambda: (add("echo") is not None) and says("eleven"))
    talk = end(process)
    assert '"event": "reload", "changed": "app.py"' in talk


@pytest.mark.slow
def test_a_job_that_runs_is_given_back_and_run_by_the_new_code(here: Path, worker: Start) -> None:
    write(here, "one")
    process = worker("--reload", "--grace", "0.1s")
    job = add("slow")
    until(lambda: (here / "slow-began").exists())
    write(here, "one", seconds=0.01)
    until(lambda: status_of(job) == "done")
    end(process)


@pytest.mark.slow
def test_a_broken_file_ends_the_worker_and_a_mended_one_starts_it(here: Path, worker: Start) -> None:
    write(here, "one")
    process = worker("--reload")
    until(lambda: (here / "pid").exists() and (here / "pid").read_text() != "")
    first = int((here / "pid").read_text())
    (here / "app.py").write_text("def (")
    assert "SyntaxError" in "".join(said_until(process, "worker_ended"))
    assert not runs(first)
    write(here, "eleven")
    until(lambda: (add("echo") is not None) and says("eleven"))
    end(process)


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_the_worker_does_not_outlive_the_process_that_watches(here: Path, worker: Start) -> None:
    write(here, "one")
    process = worker("--reload")
    add("echo")
    until(lambda: says("one"))
    child = int((here / "pid").read_text())
    assert runs(child)
    process.kill()
    process.wait()
    until(lambda: not runs(child))


def test_it_says_which_extra_it_needs(here: Path) -> None:
    write(here, "one")
    program = "import sys; sys.modules['watchfiles'] = None; from forge_jobs.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "worker", "app:handlers", "--reload"],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "--reload needs watchfiles: pip install 'forge-jobs[reload]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_does_not_go_with_drain(here: Path, worker: Start) -> None:
    write(here, "one")
    process = worker("--reload", "--drain")
    _, talk = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "leave out --reload" in talk
