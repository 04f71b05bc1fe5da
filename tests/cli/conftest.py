"""Running commands in this process."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forge_jobs.cli.main import run as run_program

from .stage import APP, Cli, Result, Start, start


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("FORGE_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command line in this process."""
    logger = logging.getLogger("forge_jobs")
    before = (logger.handlers[:], logger.level, logger.propagate)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = run_program(arguments)
        captured = capsys.readouterr()
        assert "Traceback (most recent" not in captured.err
        return Result(code, captured.out, captured.err)

    yield run
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def app(here: Path) -> Path:
    """An application with some handlers, in the current directory."""
    path = here / "app.py"
    path.write_text(APP)
    return path


@pytest.fixture
def worker(app: Path) -> Iterator[Start]:
    """Start workers of the application; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        started.append(start("worker", "app:handlers", *arguments, **environment))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
