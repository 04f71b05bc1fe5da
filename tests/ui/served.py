"""`forge-jobs serve` as a process of its own, for a browser to look at."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 20.0
_ADDRESS = re.compile(r"serving .* on (http://\S+)")


@contextmanager
def served(database: str, log: Path, *options: str, port: int = 0) -> Iterator[str]:
    """The URL of the dashboard of a server over `database`, which ends with the block."""
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "forge_jobs", "serve", "--port", str(port), "--database", database, *options],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while (found := _ADDRESS.search(log.read_text())) is None:
        assert process.poll() is None, f"serve ended with {process.returncode}: {log.read_text()}"
        assert time.monotonic() < deadline, f"serve does not begin to serve: {log.read_text()}"
        time.sleep(0.02)
    return found[1]


def token_file(folder: Path, **roles: str) -> tuple[Path, dict[str, str]]:
    """A file of tokens by name, and the tokens themselves."""
    tokens = {name: f"{name}-{hashlib.sha256(name.encode()).hexdigest()}" for name in roles}
    entries = [
        {"name": name, "sha256": hashlib.sha256(tokens[name].encode()).hexdigest(), "role": role}
        for name, role in roles.items()
    ]
    path = folder / "tokens.json"
    path.write_text(json.dumps({"tokens": entries}))
    path.chmod(0o600)
    return path, tokens
