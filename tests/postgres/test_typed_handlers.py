"""Typed payloads, hooks and shared resources with a store beneath, on both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from forge_jobs import HandlerRegistry, JobCtx, QueueRuntime, RuntimeConfig, Storage, open_storage
from forge_jobs.ids import new_id
from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.types.job import JobRow
from forge_jobs.testing.cluster import until

QUICK = RuntimeConfig(heartbeat_s=0.2, stale_s=1.0, reaper_s=0.2, supervisor_s=0.05, poll_ms=20, shutdown_grace_s=0.3)


@dataclass
class Order:
    number: int
    placed: datetime
    note: str = ""


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("pg15").new_store()
    async with open_storage(url) as opened:
        yield opened


async def test_typed_jobs_run_with_resources_and_their_deaths_are_told(storage: Storage) -> None:
    handlers = HandlerRegistry()
    got: list[object] = []
    dead: dict[str, tuple[str | None, str | None, object]] = {}

    @handlers.lifespan
    async def database() -> AsyncIterator[dict[str, int]]:
        yield {"one": 1}

    @handlers.on_dead
    async def bury(job: JobRow, *, database: dict[str, int]) -> None:
        dead[job.id] = (job.dead_reason, job.last_error, database)

    @handlers.handler("order", bad_payload="dead")
    async def order(ctx: JobCtx, order: Order, *, database: dict[str, int]) -> None:
        got.append((order, database))

    @handlers.handler("fragile", max_crashes=1)
    async def fragile(ctx: JobCtx) -> None:
        raise AssertionError("its owner has it")

    placed = Order(10**30, datetime.fromisoformat("2024-02-29T12:00:00.123456+02:00"), "NUL \x00, \N{SNOWMAN}")
    await storage.queues.ensure("default")
    lost = (await fragile.enqueue(storage)).id
    wish = ClaimRequest(queue="default", kinds=("fragile",), host_id=new_id(), slots=("default-0-gone",))
    assert len((await storage.jobs.claim(wish)).jobs) == 1
    runtime = QueueRuntime(storage, handlers, slots=2, config=QUICK)
    await runtime.start()
    try:
        await order.enqueue(storage, placed)
        await until(lambda: got == [(placed, {"one": 1})], within_s=15)

        @handlers.handler("order", bad_payload="dead")
        async def stricter(order: list[Order]) -> None: ...

        rejected = (await storage.jobs.enqueue(order.request(placed, queue="default"))).id
        await until(lambda: {rejected, lost} == dead.keys(), within_s=15)
    finally:
        await runtime.stop()
    assert dead[rejected] == ("rejected", "payload: expected `array`, got `object`", {"one": 1})
    assert dead[lost][0] == "crashed"
    assert await storage.processes.list(timedelta(seconds=30)) == []
