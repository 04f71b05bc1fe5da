"""Resources that handlers share: made before the first claim, closed after the last handler, named when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import ConfigError, HandlerRegistry, JobCtx, JobOutcome, LifespanError
from forge_jobs.runtime import lifespan
from forge_jobs.runtime.hooks import CallNext
from forge_jobs.storage.types.job import JobRow
from forge_jobs.testing.cluster import until

from .world import World


class Client:
    """What an application would share."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = True


async def test_handlers_share_what_the_lifespans_yield(world: World) -> None:
    said: list[str] = []

    @world.handlers.lifespan
    async def settings() -> AsyncIterator[dict[str, str]]:
        said.append("settings made")
        yield {"name": "blue"}
        said.append("settings closed")

    @world.handlers.lifespan
    @asynccontextmanager
    async def client(settings: dict[str, str]) -> AsyncIterator[Client]:
        made = Client(settings["name"])
        said.append("client made")
        yield made
        made.open = False
        said.append("client closed")

    @world.handlers.handler("both")
    async def both(ctx: JobCtx, payload: int, *, client: Client, optional: int = 5) -> None:
        assert client.open
        said.append(f"{payload} {client.name} {optional}")

    @world.handlers.handler("one")
    async def one(payload: int, *, client: Client) -> None:
        said.append(f"{payload} {client.name}")

    @world.handlers.handler("none")
    async def none(ctx: JobCtx, *, client: Client, settings: dict[str, str]) -> None:
        said.append(f"{client is ctx.state.client} {settings is ctx.state.settings} {ctx.state}")

    class Object:
        kind = "object"

        async def run(self, ctx: JobCtx, payload: Any) -> None:
            said.append(f"object {ctx.state.client.name}")

    world.handlers.register(Object())
    runtime = await world.work(slots=1)
    for kind in ("both", "one", "none", "object"):
        await world.when(await world.put(kind, 1), "done")
    await runtime.stop()
    assert said == [
        "settings made",
        "client made",
        "1 blue 5",
        "1 blue",
        "True True State(client, settings)",
        "object blue",
        "client closed",
        "settings closed",
    ]


async def test_nothing_is_claimed_before_all_is_made_and_nothing_closed_before_all_ended(world: World) -> None:
    made, said = asyncio.Event(), []

    @world.handlers.lifespan
    async def slow() -> AsyncIterator[int]:
        await made.wait()
        said.append("made")
        yield 1
        said.append("closed")

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx, *, slow: int) -> None:
        said.append("began")
        await ctx.cancel.wait()
        said.append("ended")

    job_id = await world.put("probe")
    runtime = world.runtime()
    starting = asyncio.create_task(runtime.start())
    await until(lambda: runtime._life is not None)
    assert (await world.row(job_id)).status == "pending"
    assert await world.storage.processes.list(timedelta(0)) == []
    made.set()
    await starting
    await until(lambda: "began" in said)
    await runtime.stop(5)
    assert said == ["made", "began", "ended", "closed"]
    assert (await world.row(job_id)).status == "done"


async def test_hooks_take_resources_too(world: World) -> None:
    said: list[str] = []

    @world.handlers.lifespan
    async def client() -> AsyncIterator[Client]:
        yield Client("blue")

    @world.handlers.before_run
    async def before(ctx: JobCtx, payload: Any, *, client: Client) -> None:
        said.append(f"before {client.name}")

    @world.handlers.middleware
    async def around(ctx: JobCtx, payload: Any, call_next: CallNext, *, client: Client) -> JobOutcome:
        said.append(f"around {client.name}")
        return await call_next(ctx, payload)

    @world.handlers.on_dead
    async def dead(job: JobRow, *, client: Client) -> None:
        said.append(f"dead {client.name}")

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> None:
        raise ValueError("broken")

    await world.work()
    await world.put("probe", max_attempts=1)
    await until(lambda: said == ["before blue", "around blue", "dead blue"])


async def test_a_runtime_that_is_started_again_makes_them_again(world: World) -> None:
    made: list[Client] = []

    @world.handlers.lifespan
    async def client() -> AsyncIterator[Client]:
        made.append(Client("blue"))
        async with asyncio.TaskGroup():  # must be left by the task that entered it
            yield made[-1]
        made[-1].open = False

    runtime = world.runtime()
    for n in (1, 2):
        await asyncio.create_task(runtime.start())
        assert (len(made), made[-1].open) == (n, True)
        await asyncio.create_task(runtime.stop())
        assert not made[-1].open


async def test_what_cannot_be_made_ends_the_start_and_closes_the_rest(world: World) -> None:
    closed: list[str] = []

    @world.handlers.lifespan
    async def first() -> AsyncIterator[int]:
        yield 1
        closed.append("first")

    works = False

    @world.handlers.lifespan
    async def second(first: int) -> AsyncIterator[int]:
        if not works:
            raise OSError("connection refused")
        yield 2

    runtime = world.runtime()
    with pytest.raises(LifespanError, match=r"resource 'second' could not be made: OSError: connection refused"):
        await runtime.start()
    assert closed == ["first"]
    assert await world.storage.processes.list(timedelta(0)) == []
    works = True
    await runtime.start()
    await world.works_on()


async def test_what_fails_to_close_is_told_after_all_is_recorded(world: World) -> None:
    closed: list[str] = []

    @world.handlers.lifespan
    async def first() -> AsyncIterator[int]:
        yield 1
        closed.append("first")

    @world.handlers.lifespan
    async def second() -> AsyncIterator[int]:
        yield 2
        raise OSError("connection lost")

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> None: ...

    job_id = await world.put("probe")
    with pytest.raises(LifespanError, match=r"resource 'second' failed as it was closed: OSError: connection lost"):
        await world.runtime().drain()
    assert (await world.row(job_id)).status == "done"
    assert closed == ["first"]


async def test_what_hangs_as_it_closes_is_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan, "LEAVE_S", 0.05)

    @world.handlers.lifespan
    async def hanging() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    with pytest.raises(LifespanError, match=r"the resources took more than 0\.05 s to close"):
        await world.runtime().drain()


async def test_a_stop_while_resources_are_made_is_a_clean_one(world: World) -> None:
    began, closed = asyncio.Event(), asyncio.Event()

    @world.handlers.lifespan
    async def model() -> AsyncIterator[int]:
        began.set()
        try:
            await asyncio.sleep(60)
            yield 1
        finally:
            closed.set()

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx, *, model: int) -> None: ...

    job_id = await world.put("probe")
    runtime = world.runtime()
    running = asyncio.create_task(runtime.run())
    await began.wait()
    runtime.request_stop()
    await asyncio.wait_for(running, 5)
    assert closed.is_set()
    row = await world.row(job_id)
    assert (row.status, row.attempts) == ("pending", 0)


async def test_a_resource_that_nobody_provides_is_noticed_at_the_start(world: World) -> None:
    @world.handlers.lifespan
    async def client() -> AsyncIterator[Client]:
        yield Client("blue")

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx, *, clint: Client) -> None: ...

    with pytest.raises(ConfigError) as raised:
        await world.runtime().start()
    assert str(raised.value) == (
        "the handler for kind 'probe' takes the resource 'clint', which no @handlers.lifespan provides; there is client"
    )

    @world.handlers.handler("probe")
    async def mended(ctx: JobCtx) -> None: ...

    @world.handlers.on_dead
    async def bury(job: JobRow, *, grave: int) -> None: ...

    with pytest.raises(ConfigError, match="bury takes the resource 'grave'"):
        await world.runtime().start()


async def test_a_handler_added_later_that_takes_an_unknown_resource_fails(world: World) -> None:
    await world.work()

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx, *, clint: Client) -> None: ...

    detail = await world.when(await world.put("probe"), "failed")
    assert detail.row.last_error == "there is no resource 'clint'; @handlers.lifespan provides none"


def test_what_cannot_be_a_lifespan_is_refused() -> None:
    handlers = HandlerRegistry()

    async def coroutine() -> int:
        return 1

    async def needy(other: int) -> AsyncIterator[int]:
        yield other

    with pytest.raises(ConfigError, match="'coroutine', which is no async generator") as raised:
        handlers.lifespan(coroutine)
    assert "one `yield` of the resource" in str(raised.value)
    with pytest.raises(ConfigError, match="lifespan 'needy' takes 'other', which no lifespan before it provides"):
        handlers.lifespan(needy)


async def test_other_runners_of_handlers_enter_the_same_resources() -> None:
    handlers = HandlerRegistry()
    closed = False

    @handlers.lifespan
    async def number() -> AsyncIterator[int]:
        nonlocal closed
        yield 5
        closed = True

    async with handlers.lifespans.entered() as state:
        assert state.number == 5
        with pytest.raises(AttributeError, match="cannot be set"):
            state.number = 6
        with pytest.raises(AttributeError, match="there is no resource 'nummer'"):
            _ = state.nummer
    assert closed
    with pytest.raises(KeyError, match="mine"):
        async with handlers.lifespans.entered():
            raise KeyError("mine")
