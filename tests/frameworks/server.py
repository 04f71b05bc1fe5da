"""A web server of an example, as a process of its own, and requests to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
START_LIMIT_S: Final = 30.0
LOOK_S: Final = 0.05


class Site:
    """What answers at a port of this machine."""

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}"

    def request(self, method: str, path: str, *, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """The status and the text of the answer."""
        asked = urllib.request.Request(
            self._root + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def job(self, method: str, path: str) -> str:
        """The id of the job that a request made."""
        status, text = self.request(method, path)
        assert status == 202, text
        found: str = json.loads(text)["job"]
        return found


@contextmanager
def running(*command: str, folder: Path, path: Sequence[Path] = (EXAMPLES,), **environment: str) -> Iterator[Any]:
    """A Python module with arguments, running in `folder` and stopped by SIGTERM; its process. It must end well."""
    log = folder / f"{command[0]}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **environment},
        )
    try:
        yield process
        process.terminate()
        code = process.wait(20)
        assert code in (0, -15), log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def site(
    *command: str, port: int, folder: Path, path: Sequence[Path] = (EXAMPLES,), **environment: str
) -> Iterator[Site]:
    """A server that listens on `port`, once it answers."""
    with running(*command, folder=folder, path=path, **environment) as process:
        made = Site(port)
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                made.request("GET", "/")
                break
            except urllib.error.URLError:
                assert process.poll() is None, (folder / f"{command[0]}.log").read_text()
                assert time.monotonic() < deadline, "it does not answer"
                time.sleep(LOOK_S)
        yield made
