"""mypy and pyright accept the right payloads of a handler and refuse the wrong ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("handlers.txt").read_text()
WRONG = {number for number, line in enumerate(SOURCE.splitlines(), start=1) if line.endswith("# error")}


@pytest.fixture
def snippet(tmp_path: Path) -> Path:
    path = tmp_path / "snippet.py"
    path.write_text(SOURCE)
    return path


def test_mypy(snippet: Path) -> None:
    done = _run("mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", str(snippet))
    refused = {int(line) for line in re.findall(r"(?m)^\S*snippet\.py:(\d+): error:", done.stdout)}
    assert refused == WRONG, done.stdout + done.stderr


def test_pyright(snippet: Path) -> None:
    settings = {"typeCheckingMode": "strict", "pythonPlatform": "Linux", "include": ["snippet.py"]}
    (snippet.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    done = _run("basedpyright", "--outputjson", "--project", str(snippet.parent), "--pythonpath", sys.executable)
    told = json.loads(done.stdout)["generalDiagnostics"]
    errors = [one for one in told if one["severity"] == "error"]
    assert {one["range"]["start"]["line"] + 1 for one in errors} == WRONG, "\n".join(map(str, errors))


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
