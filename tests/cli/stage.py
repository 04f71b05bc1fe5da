"""The program as a process of its own, and jobs put where a test wants them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from forge_jobs import EnqueueRequest, Storage, open_storage
from forge_jobs.ids import JobId
from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.types.finalize import FinalizeOutcome
from forge_jobs.storage.types.job import JobRecord

T = TypeVar("T")
URL = "sqlite:///forge-jobs.db"
APP = """
import asyncio
from forge_jobs import Dead, HandlerRegistry

handlers = HandlerRegistry()
not_handlers = {}

@handlers.handler("echo")
async def echo(ctx, payload):
    ctx.log.info("echoing %s", payload)

@handlers.handler("fail")
async def fail(payload):
    raise ValueError(payload.get("message", "broken"))

@handlers.handler("slow")
async def slow(payload):
    open("slow-began", "w").close()
    await asyncio.sleep(60)

@handlers.handler("stubborn")
async def stubborn(payload):
    open("stubborn-began", "w").close()
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Cli = Callable[..., Result]
Start = Callable[..., subprocess.Popen[str]]


def program(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
    """Run the program as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "forge_jobs", *arguments],
        input=stdin or "",
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        timeout=60,
        check=False,
    )
    assert "Traceback (most recent" not in done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the program and do not wait for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "forge_jobs", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so in another process."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def in_store(work: Callable[[Storage], Awaitable[T]], url: str = URL) -> T:
    """Do something in the store of the current directory."""

    async def main() -> T:
        async with open_storage(url) as storage:
            return await work(storage)

    return asyncio.run(main())


def add(kind: str = "echo", payload: Any = None, *, queue: str = "default", **options: Any) -> JobId:
    """Enqueue one job."""

    async def work(storage: Storage) -> JobId:
        request = EnqueueRequest(kind, {} if payload is None else payload, queue=queue, **options)
        return (await storage.jobs.enqueue(request)).id

    return in_store(work)


def claim(kind: str = "echo", queue: str = "default") -> JobRecord:
    """Take the next job, as a worker does."""

    async def work(storage: Storage) -> JobRecord:
        wish = ClaimRequest(queue=queue, kinds=(kind,), host_id="01JH3V7M8Q2X4N5P6R7S8T9V00", slots=(f"{queue}-0-x",))
        return (await storage.jobs.claim(wish)).jobs[0]

    return in_store(work)


def finish(job: JobRecord, outcome: FinalizeOutcome) -> None:
    """Settle a claimed job."""

    async def work(storage: Storage) -> None:
        await storage.jobs.finalize(job.id, job.fence, outcome)

    in_store(work)


def status_of(job_id: str) -> str:
    """The status of a job."""

    async def work(storage: Storage) -> str:
        detail = await storage.jobs.get(JobId(job_id))
        return "gone" if detail is None else detail.row.status

    return in_store(work)
