"""Worker processes for a test, to be killed, frozen, thawed and stopped.

    with Cluster("sqlite:////tmp/jobs.db", "app.jobs:handlers", workers=3, folder=tmp_path) as cluster:
        cluster.kill("worker-0")
        await until(lambda: every_job_is_done(storage), within_s=10)

Linux: what a frozen process holds is read from `/proc`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from forge_jobs.clock import SHARED_CLOCK
from forge_jobs.testing.clock import SharedClock

T = TypeVar("T")
LOOK_S: Final = 0.005
FREEZE_LIMIT_S: Final = 5.0
LOG_TAIL: Final = 4_000


@overload
async def until(condition: Callable[[], Awaitable[T | None]], *, within_s: float = ..., what: str = ...) -> T: ...
@overload
async def until(condition: Callable[[], T | None], *, within_s: float = ..., what: str = ...) -> T: ...
async def until(condition: Callable[[], Any], *, within_s: float = 5.0, what: str = "") -> Any:
    """Wait until `condition`, a plain or an async function, gives something true; that.

    Raises:
        AssertionError: it did not within `within_s`; the message holds what it gave last.
    """
    deadline = time.monotonic() + within_s
    while True:
        found = condition()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what or condition!r}; the last answer was {value!r}")
        await asyncio.sleep(LOOK_S)


class Cluster:
    """Workers by name: `worker-0`, `worker-1` and so on. None of them outlives the block.

    database, handlers, queues, slots: as on the command line of `forge-jobs worker`. environment: variables for the
    workers on top of this process's own. folder: where their logs go. command: what to start in place of
    `python -m forge_jobs`; it gets the same arguments. directory: where they run, which is where MODULE is looked for.
    clock: what they read time from in place of the host's, so that `advance` can move it.
    """

    def __init__(
        self,
        database: str,
        handlers: str,
        *,
        folder: Path,
        workers: int = 3,
        queues: Sequence[str] = ("default",),
        slots: int = 10,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "forge_jobs"),
        directory: Path | None = None,
        clock: SharedClock | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        shared = {} if clock is None else {SHARED_CLOCK: str(clock.path.absolute())}
        self._environment = {**os.environ, **shared, **(environment or {})}
        self._directory = directory
        self._argv = [
            *(*command, "worker", handlers, "--database", database),
            *("--queues", ",".join(queues), "--slots", str(slots)),
        ]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for _ in range(workers):
            self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()

    @property
    def names(self) -> list[str]:
        """Every worker that was started, in order."""
        return list(self._processes)

    def start(self, name: str | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Start one more worker, with variables of its own; its name. The name of one that ended may be used again."""
        name = name or f"worker-{len(self._processes)}"
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [*self._argv, "--name", name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env={**self._environment, **(environment or {})},
            )
        return name

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL; returns when the worker is gone."""
        self._processes[name].kill()
        self._processes[name].wait()

    def freeze(self, name: str) -> None:
        """SIGSTOP, at a moment when the worker holds no lock that would stop all others with it."""
        process = self._processes[name]
        deadline = time.monotonic() + FREEZE_LIMIT_S
        while True:
            process.send_signal(signal.SIGSTOP)
            while _state(process.pid) != "T":
                time.sleep(0.0005)
            if not _holds_a_write_lock(process.pid):
                return
            process.send_signal(signal.SIGCONT)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} holds a write lock whenever it is looked at")
            time.sleep(0.0005)

    def is_frozen(self, name: str) -> bool:
        """Whether the worker stands still, frozen by us or by itself."""
        return _state(self.pid(name)) == "T"

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._processes[name].send_signal(signal.SIGCONT)

    def advance(self, duration: timedelta | float | str) -> None:
        """Let time pass for every worker, and for a store that was opened with the same clock. They notice when they
        next look at the store, after `poll_ms` or, in a long silence, 2 s.

        Raises:
            ValueError: the cluster was started without a clock.
        """
        if self._clock is None:
            raise ValueError("these workers have the host's clock; start them with Cluster(…, clock=SharedClock(path))")
        self._clock.advance(duration)

    def terminate(self, name: str) -> None:
        """SIGTERM; returns at once."""
        self._processes[name].terminate()

    def stop(self, name: str, *, within_s: float = 10.0) -> int:
        """SIGTERM; the exit status once the worker has ended.

        Raises:
            subprocess.TimeoutExpired: it did not end.
        """
        self._processes[name].terminate()
        return self._processes[name].wait(within_s)

    def exit_status(self, name: str) -> int | None:
        """How the worker ended, negative for a signal; None while it runs."""
        return self._processes[name].poll()

    def log(self, name: str) -> str:
        """The end of what the worker printed."""
        return (self._folder / f"{name}.log").read_bytes()[-LOG_TAIL:].decode(errors="replace")


def _state(pid: int) -> str:
    """The letter that the kernel gives the state of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _holds_a_write_lock(pid: int) -> bool:
    """Whether the process has an exclusive lock on any file."""
    try:
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    return any(
        fields[3:5] == ["WRITE", str(pid)] for fields in map(str.split, locks.splitlines()) if "->" not in fields
    )
