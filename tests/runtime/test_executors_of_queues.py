"""A queue says where its handlers run, unless they say so themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from forge_jobs import ConfigError, Done, HandlerRegistry, JobCtx, StoreConfig, open_storage
from forge_jobs.testing.cluster import until
from forge_jobs.testing.postgres import Server

from . import placed_handlers
from .world import World, scaled

QUEUES = ["default", "reports"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A world on each backend."""
    url = (
        f"sqlite:///{tmp_path}/jobs.db"
        if request.param == "sqlite"
        else request.getfixturevalue("server").new_database()
    )
    async with open_storage(url, config=StoreConfig(event_flush_s=0.1)) as storage:
        made = World(storage, None)
        made.handlers = placed_handlers.handlers
        yield made
        await made.close()


async def where(world: World, kind: str, queue: str) -> tuple[bool, str]:
    """Whether the handler ran in this process, and on which thread."""
    detail = await world.when(await world.put(kind, queue=queue), "dead", within_s=20)
    pid, _, thread = (detail.row.last_error or "").partition(" ")
    return int(pid) == os.getpid(), thread.partition("-")[0]


async def test_handlers_run_where_they_say_else_where_their_queue_says_else_where_they_fit(stored: World) -> None:
    await stored.work(2, queues=QUEUES, executors={"reports": "process"}, registry=placed_handlers.PATH)
    assert await where(stored, "plain", "default") == (True, "forge")
    assert await where(stored, "looped", "default") == (True, "MainThread")
    assert await where(stored, "plain", "reports") == (False, "MainThread")
    assert await where(stored, "looped", "reports") == (False, "MainThread")
    assert await where(stored, "own.thread", "reports") == (True, "forge")
    assert await where(stored, "own.async", "reports") == (True, "MainThread")


async def test_a_handler_with_children_of_its_own_stays_in_the_worker(world: World) -> None:
    world.handlers = placed_handlers.handlers
    await world.work(executors={"default": "process"}, registry=placed_handlers.PATH)
    job = await world.put("cmd_exec", {"argv": [sys.executable, "-c", ""]})
    await world.when(job, "done", within_s=20)


async def test_kinds_that_need_a_thread_elsewhere_are_taken_where_they_need_none(world: World) -> None:
    world.handlers = placed_handlers.handlers
    config = scaled(max_abandoned_threads=1)
    options: Any = {"queues": QUEUES, "executors": {"reports": "process"}, "registry": placed_handlers.PATH}
    runtime = await world.work(config=config, **options)
    try:
        await world.when(await world.put("hang", max_attempts=1), "dead")
        await until(lambda: runtime.env.threads.full, what="no thread left")
        waits = await world.put("plain")
        assert await where(world, "plain", "reports") == (False, "MainThread")
        assert (await world.row(waits)).status == "pending"
        await runtime.env.heartbeat.beat_now()
        (process,) = await world.storage.processes.list(config.stale_after)
        assert "plain" in process.info.kinds
        assert process.info.closed_kinds == ("hang", "own.thread")
    finally:
        placed_handlers.released.set()
    await world.when(waits, "dead")
    placed_handlers.released.clear()


# What is refused


async def refused(world: World, executors: Any, registry: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        await world.work(queues=QUEUES, executors=executors, registry=registry)
    return str(caught.value)


@pytest.mark.parametrize(
    ("executors", "named"),
    [
        ({"reports": "proces"}, "executors['reports']: executor 'proces' must be one of"),
        ({"reports": "proces"}, "did you mean 'process'?"),
        ({"reports": None}, "executor None must be one of 'async', 'thread', 'process'"),
        ({"report": "process"}, "the queue 'report', but served are default, reports; did you mean 'reports'?"),
        ({"no spaces": "process"}, "queue name 'no spaces'"),
        ({5: "process"}, "executors[5]"),
        (["reports"], "must map queues to executors"),
    ],
)
async def test_what_is_no_executor_of_a_queue_is_refused(world: World, executors: Any, named: str) -> None:
    assert named in await refused(world, executors)


async def test_a_handler_that_cannot_run_where_its_queue_says_is_refused_at_the_start(world: World) -> None:
    @world.handlers.handler("looped")
    async def looped(ctx: JobCtx) -> None: ...

    text = await refused(world, {"reports": "thread"})
    assert "queue 'reports' is to run its handlers with executor 'thread'" in text
    assert "kind 'looped' is `async def`" in text
    assert "executor='async', which comes first" in text
    await world.work(queues=QUEUES, executors={"reports": "async"})

    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None: ...

    assert "kind 'plain' is a plain function, which would block" in await refused(world, {"reports": "async"})


async def test_a_handler_that_keeps_something_in_its_worker_is_refused_in_children(world: World) -> None:
    class Keeper:
        kind = "keeper"

        async def run(self, ctx: JobCtx, payload: Any) -> Done:
            return Done()

        async def runtime_started(self, env: Any) -> None: ...

        async def runtime_stopping(self, env: Any) -> None: ...

    world.handlers.register(Keeper())
    assert "kind 'keeper' keeps something for its worker" in await refused(
        world, {"reports": "process"}, "app:handlers"
    )
    world.handlers.register(Keeper(), executor="async")
    await world.work(queues=QUEUES, executors={"reports": "process"})


async def test_handlers_that_children_cannot_find_are_refused_at_the_start(world: World) -> None:
    @world.handlers.handler("local")
    def local(ctx: JobCtx) -> None: ...

    assert "handlers for kinds local run in child processes" in await refused(world, {"reports": "process"})
    text = await refused(world, {"reports": "process"}, placed_handlers.PATH)
    assert "has no handler for kind 'local', which runs in child processes; register it at the top level" in text


async def test_a_misfit_that_is_registered_later_fails_its_jobs_with_the_reason(world: World) -> None:
    world.handlers = HandlerRegistry()
    await world.work(executors={"default": "thread"})

    @world.handlers.handler("late")
    async def late(ctx: JobCtx) -> None: ...

    detail = await world.when(await world.put("late", max_attempts=1), "dead")
    assert "the handler for kind 'late' is `async def`" in (detail.row.last_error or "")

    @world.handlers.handler("late")
    def mended(ctx: JobCtx) -> None: ...

    await world.when(await world.put("late"), "done")
