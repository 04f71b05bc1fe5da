"""A server in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx2

from forge_jobs.storage.open import open_storage

from .stage import Furnished, furnish


class Live:
    """`forge-jobs serve` on a free port of the loopback, until the block ends."""

    def __init__(self, url: str, *options: str, environment: dict[str, str] | None = None) -> None:
        self.url = url
        self._options = options
        self._environment = environment or {}

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(1) as thread:  # a test may be in an event loop of its own
            self.made: Furnished = thread.submit(asyncio.run, self._furnish()).result()
        program = Path(sys.executable).with_name("forge-jobs")
        environment = {
            **os.environ,
            "FORGE_DATABASE_URL": self.url,
            "FORGE_LOG_LEVEL": "warning",
            "FORGE_EVENT_FLUSH_S": "0.05",
            **self._environment,
        }
        self._process = subprocess.Popen(
            [program, "serve", "--port", "0", *self._options], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("serving "), line
        self.base = line.split()[-1].rstrip("/")
        self.port = (urlsplit(self.base).port or 0) if self.base.startswith("http") else 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        try:
            assert self._process.wait(15) == 0
        finally:
            self._process.kill()
            assert self._process.stdout is not None
            self._process.stdout.close()

    def stop(self) -> None:
        """Ask it to end."""
        self._process.send_signal(signal.SIGTERM)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None and httpx2.get(f"{self.base}/livez").status_code == 200

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _furnish(self) -> Furnished:
        async with open_storage(self.url) as storage:
            return await furnish(storage)
