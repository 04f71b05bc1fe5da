"""`jobs show --stack`: where the handler of a job is, asked of the worker that runs it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from forge_jobs.testing.postgres import Server

from .stage import program, start, until

CODE: Final = """
import asyncio, time
from pathlib import Path
from forge_jobs import HandlerRegistry

handlers = HandlerRegistry()

def begin(ctx):
    Path(f"began-{ctx.kind}").touch()

def blocked(ctx):
    begin(ctx)
    time.sleep(60)  # stands for a query

async def waiting(ctx):
    begin(ctx)
    await asyncio.sleep(60)

@handlers.handler("looped")
async def looped(ctx):
    await waiting(ctx)

@handlers.handler("threaded")
def threaded(ctx):
    blocked(ctx)

@handlers.handler("child", executor="process")
def child(ctx):
    blocked(ctx)

@handlers.handler("child.looped", executor="process")
async def child_looped(ctx):
    await waiting(ctx)

@handlers.handler("child.blocked", executor="process")
async def child_blocked(ctx):
    blocked(ctx)

@handlers.handler("blocking")
async def blocking(ctx):
    blocked(ctx)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, here: Path) -> str:
    """A store on each backend."""
    (here / "deep.py").write_text(CODE)
    if request.param == "sqlite":
        return f"sqlite:///{here}/jobs.db"
    server: Server = request.getfixturevalue("server")
    return server.new_store()


@contextmanager
def running(url: str, *kinds: str) -> Iterator[dict[str, str]]:
    """Ids of jobs of these kinds, whose handlers are at work in one worker."""
    worker: subprocess.Popen[str] = start("--database", url, "worker", "deep:handlers")
    try:
        until(lambda: program("--database", url, "db", "status").code == 0)
        jobs = {}
        for kind in kinds:
            jobs[kind] = program("--database", url, "enqueue", kind, "{}", "--json").json["id"]
        for kind in kinds:
            until(Path(f"began-{kind}").exists)
        yield jobs
    finally:
        worker.kill()
        worker.communicate()


PLACES: Final = {
    "looped": ("on the event loop", ["looped: await waiting(ctx)", "waiting: await asyncio.sleep(60)", "sleep: "]),
    "threaded": ("on thread forge-sync-", ["threaded: blocked(ctx)", "blocked: time.sleep(60)  # stands for a query"]),
    "child": ("in child process ", ["child: blocked(ctx)", "blocked: time.sleep(60)  # stands for a query"]),
    "child.looped": ("in child process ", ["child_looped: await", "waiting: await asyncio.sleep(60)", "sleep: "]),
    "child.blocked": ("in child process ", ["child_blocked: blocked(ctx)", "blocked: time.sleep(60)"]),
}


def test_it_is_shown_where_a_handler_is_on_every_executor(url: str) -> None:
    with running(url, *PLACES) as jobs:
        for kind, (place, frames) in PLACES.items():
            shown = program("--database", url, "jobs", "show", jobs[kind], "--stack", "--json")
            assert shown.code == 0, (kind, shown.err)
            found = shown.json
            assert (found["job_id"], found["attempt"]) == (jobs[kind], 1)
            assert found["where"].startswith(place), kind
            ours = [line for line in found["frames"] if "asyncio/base_events" not in line and "runners" not in line]
            named = [line.partition(" in ")[2] for line in ours][-len(frames) :]
            assert [name[: len(frame)] for name, frame in zip(named, frames, strict=True)] == frames, (kind, found)
        text = program("--database", url, "jobs", "show", jobs["threaded"], "--stack").out
        assert "deep.py:" in text
        assert "stands for a query" in text
        again = program("--database", url, "jobs", "show", jobs["threaded"], "--stack", "--json").json
        assert len(again["frames"]) == 2  # the newest answer alone
        assert "stack of its handler" in program("--database", url, "jobs", "show", jobs["threaded"]).out


@pytest.mark.slow
def test_a_job_that_does_not_run_and_a_worker_that_cannot_answer_are_told_of(url: str) -> None:
    assert program("--database", url, "db", "create").code == 0
    waits = program("--database", url, "enqueue", "nobody", "{}", "--json").json["id"]
    shown = program("--database", url, "jobs", "show", waits, "--stack")
    assert (shown.code, shown.err) == (1, f"error: job {waits} is pending: no handler of it runs\n")
    with running(url, "blocking") as jobs:
        shown = program("--database", url, "jobs", "show", jobs["blocking"], "--stack")
        assert shown.code == 1
        assert "did not say where its handler is within 6 s" in shown.err
        assert "blocks the event loop" in shown.err
