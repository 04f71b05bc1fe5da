"""Whatever is sent, the answer is one that is documented, and never a fault of the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .live import Live

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(params=["sqlite", "postgresql"])
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    """A server in a process of its own, with something of everything in its store."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/jobs.db"
    else:
        url = request.getfixturevalue("postgres").new_store()
    with Live(url) as running:
        yield running


def test_random_calls_get_documented_answers(live: Live, tmp_path: Path) -> None:
    fuzz(live, tmp_path, "--phases", "fuzzing", "--max-examples", "3")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_random_calls_get_documented_answers(live: Live, tmp_path: Path) -> None:
    fuzz(live, tmp_path, "--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--continue-on-failure")


def fuzz(live: Live, folder: Path, *options: str) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    command: list[str | Path] = [
        program, "run", f"{live.base}/openapi.json", "--checks", CHECKS, "--seed", "1", "--mode", "all", "--no-color",
        "--header", "Sec-Fetch-Site: none", "--exclude-path", "/api/v1/events", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert live.alive
