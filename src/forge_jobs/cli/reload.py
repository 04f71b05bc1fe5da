"""`forge-jobs worker --reload`: a worker that is started anew whenever a source file changes. For development.

This process only watches; the worker is its child, so that changed modules are imported from the beginning. The child
stops when this process is gone, however that came: it holds the other end of its standard input.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from forge_jobs.cli.errors import Usage
from forge_jobs.observe import tell

log = logging.getLogger("forge_jobs.reload")

DRAIN_S: Final = 5.0
"""How long handlers get to end before the worker is started anew."""
MARGIN_S: Final = 6.0
"""A worker that takes so much longer than its grace is killed."""
STDIN: Final = 0
LOOK_MS: Final = 250
"""How often it is looked whether the worker still runs."""


def run_reloading(command: Sequence[str], folder: Path, *, marked: str) -> int:
    """Run `command`, a worker, until a signal ends it, and anew after every change of a Python file below `folder`; the
    exit code of the last one. One that ends by itself, such as after a syntax error, is started by the next change. The
    variable `marked` tells it that it has a parent to follow.

    Raises:
        Usage: watchfiles is not installed.
    """
    watchfiles = _watchfiles()
    child = _Child(command, marked)
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()
        child.signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        changes = _changes(watchfiles, folder, stopping)
        next(changes)  # from here on no change is missed
        child.start()
        for changed in changes:
            if changed:
                tell(log, logging.INFO, "reload", changed=", ".join(sorted(changed)))
                child.stop()
                if not stopping.is_set():
                    child.start()
            else:
                child.look()
        return child.wait()
    finally:
        child.stop()


def follow_parent() -> None:
    """In the child: stop as after SIGTERM when the process that watches is gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):  # unbuffered: Python would abort at its end over the lock of a buffer
            while os.read(STDIN, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="forge-reload", daemon=True).start()


class _Child:
    """The worker of the moment."""

    def __init__(self, command: Sequence[str], marked: str) -> None:
        self._command = command
        self._environment = {**os.environ, marked: "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def start(self) -> None:
        self._told = False
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C comes to us, and we pass it on once
        )

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def look(self) -> None:
        """Tell once of a worker that ended by itself."""
        if self._process is not None and not self._told and self._process.poll() is not None:
            self._told = True
            tell(log, logging.WARNING, "worker_ended", status=self._process.returncode)

    def stop(self) -> None:
        """Let its handlers end, within a limit; returns when the worker is gone."""
        self.signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> int:
        """Its exit code."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(DRAIN_S + MARGIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()


def _changes(watchfiles: ModuleType, folder: Path, stopping: threading.Event) -> Iterator[set[str]]:
    """What changed, again and again until `stopping`; an empty set if nothing did for a moment."""

    def watch(*, polling: bool | None) -> Iterator[set[tuple[object, str]]]:
        found: Iterator[set[tuple[object, str]]] = watchfiles.watch(
            folder,
            watch_filter=watchfiles.PythonFilter(),
            stop_event=stopping,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=polling,
        )
        return found

    try:
        for changed in watch(polling=None):
            yield {os.path.relpath(path, folder) for _, path in changed}
    except OSError as error:  # such as a folder with more files than the system lets one watch
        tell(log, logging.WARNING, "reload_polls", error=error)
        for changed in watch(polling=True):
            yield {os.path.relpath(path, folder) for _, path in changed}


def _watchfiles() -> ModuleType:
    try:
        import watchfiles
    except ModuleNotFoundError as error:
        raise Usage("--reload needs watchfiles: pip install 'forge-jobs[reload]'") from error
    return watchfiles
