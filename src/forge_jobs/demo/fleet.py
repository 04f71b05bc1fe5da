"""The demo's processes: one upstream, and workers and the dashboard started from the command line like anybody's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from forge_jobs.config import StoreConfig
from forge_jobs.demo.jobs import LOCAL_QUEUE, UPSTREAM_QUEUE
from forge_jobs.demo.plan import TIMINGS, Plan, environment

HANDLERS: Final = "forge_jobs.demo.jobs:handlers"
STOP_LIMIT_S: Final = 3.0
LOG_TAIL_BYTES: Final = 2_000


class DemoError(Exception):
    """The demo cannot go on; the message says why, `log` is the end of what the process in question wrote."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log
        if log:
            self.add_note(log)


class Fleet:
    """Processes by name. Whatever happens, none of them outlives the block."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.database = plan.server or f"sqlite:///{folder / 'jobs.db'}"
        self.store = StoreConfig(schema=plan.schema)
        self.upstream_log = folder / "upstream.jsonl"
        self.exits: list[tuple[str, int]] = []
        """Every worker that has ended, with its exit status; negative for a signal."""
        self._folder = folder
        self._plan = plan
        self._upstream: subprocess.Popen[bytes] | None = None
        self._dashboard: subprocess.Popen[bytes] | None = None
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leaving = [*self._workers.values(), *([self._dashboard] if self._dashboard is not None else [])]
        for process in leaving:
            process.terminate()
        end = time.monotonic() + STOP_LIMIT_S
        for process in leaving:
            _end(process, end - time.monotonic())
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._upstream is not None:
            assert self._upstream.stdin is not None
            assert self._upstream.stdout is not None
            self._upstream.stdin.close()
            self._upstream.stdout.close()
            _end(self._upstream, STOP_LIMIT_S)

    async def start_upstream(self, budget: int, stranger_after: int) -> str:
        """Start the upstream with a budget of requests per second, which another client takes for a while after so many
        answers; the address it serves on.

        Raises:
            DemoError: it did not start.
        """
        self.upstream_log.touch()
        options = {
            "items": self._plan.items,
            "seed": self._plan.seed,
            "budget": budget,
            "stranger-after": stranger_after,
        }
        argv = [f"--{name}={value}" for name, value in options.items()]
        self._upstream = self._start(
            "upstream", "forge_jobs.demo.upstream", *argv, f"--log={self.upstream_log}", piped=True
        )
        assert self._upstream.stdout is not None
        port = await asyncio.to_thread(self._upstream.stdout.readline)
        if not port.strip():
            raise DemoError("the upstream did not start", self._tail("upstream"))
        return f"http://127.0.0.1:{int(port)}"

    async def start_dashboard(self) -> str | None:
        """Serve the dashboard of the demo's store; its address. None if its libraries are not installed.

        Raises:
            DemoError: it did not start.
        """
        if any(find_spec(library) is None for library in ("fastapi", "uvicorn")):
            return None
        self._dashboard = self._start(
            "dashboard", "forge_jobs", "serve", "--database", self.database, "--port", "0", piped=True
        )
        assert self._dashboard.stdout is not None
        words = (await asyncio.to_thread(self._dashboard.stdout.readline)).decode().split()
        if not words:
            raise DemoError("the dashboard did not start", self._tail("dashboard"))
        return words[-1]

    def start_worker(self, name: str) -> None:
        """Start a worker; the name of one that has ended may be used again."""
        self._workers[name] = self._start(
            name,
            *("forge_jobs", "worker", HANDLERS, "--database", self.database, "--name", name),
            *("--queues", f"{UPSTREAM_QUEUE},{LOCAL_QUEUE}", "--slots", str(self._plan.slots)),
            *("--grace", f"{TIMINGS.shutdown_grace_s:g}"),
        )

    def pids(self) -> dict[str, int]:
        """The workers that run, and their process ids."""
        return {name: process.pid for name, process in self._workers.items()}

    def kill(self, name: str) -> None:
        """SIGKILL; returns when the worker is gone."""
        self._workers[name].kill()
        self._workers[name].wait()
        self.has_ended(name)

    def terminate(self, name: str) -> None:
        """SIGTERM; returns at once."""
        self._workers[name].terminate()

    def has_ended(self, name: str) -> bool:
        """Whether the worker is gone; then it is among the `exits`."""
        if name in self._workers and (status := self._workers[name].poll()) is not None:
            del self._workers[name]
            self.exits.append((name, status))
        return name not in self._workers

    def check(self, leaving: Collection[str] = ()) -> None:
        """Raise `DemoError` if the upstream has ended, or a worker that nobody told to."""
        for name, process in (("upstream", self._upstream), ("dashboard", self._dashboard)):
            if process is not None and process.poll() is not None:
                raise DemoError(f"the {name} ended with status {process.returncode}", self._tail(name))
        for name, process in self._workers.items():
            if name not in leaving and process.poll() is not None:
                raise DemoError(f"{name} ended with status {process.returncode}", self._tail(name))

    def _start(self, name: str, module: str, *argv: str, piped: bool = False) -> subprocess.Popen[bytes]:
        """`python -m module …` in the demo's folder, where no configuration file is, out of reach of Ctrl-C."""
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *argv],
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log,
                cwd=self._folder,
                env={**environment(os.environ), "FORGE_SCHEMA": self.store.schema},
                start_new_session=True,
            )

    def _tail(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()


def _end(process: subprocess.Popen[bytes], limit_s: float) -> None:
    try:
        process.wait(max(0.0, limit_s))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
