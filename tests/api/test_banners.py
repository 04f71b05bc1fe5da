"""What the overview warns of: banners come when something is wrong, and go when it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from forge_jobs import EnqueueRequest
from forge_jobs.api import create_app
from forge_jobs.api.banners import LOOP_PATIENCE, LOOPS
from forge_jobs.clock import ManualClock
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.testing.factories import HOST, KIND, OTHER_HOST, QUEUE, make_process

from .stage import local

LEASE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Stage:
    """A store whose time stands still until it is moved, and who asks the API about it."""

    storage: Storage
    clock: ManualClock
    client: httpx2.AsyncClient

    async def beat(self, host_id: str = HOST, **fields: Any) -> None:
        heart = self.storage.processes.open_heart(timedelta(seconds=5))
        try:
            heart.beat(make_process(host_id, **fields), ())
        finally:
            heart.close()

    async def banners(self) -> dict[str, dict[str, Any]]:
        found = (await self.client.get("/api/v1/overview")).json()["banners"]
        return {banner["id"]: banner for banner in found}


@pytest.fixture
async def stage(url: str) -> AsyncIterator[Stage]:
    clock = ManualClock()
    async with open_storage(url, clock=clock) as storage, local(create_app(storage)) as client:
        yield Stage(storage, clock, client)


async def test_a_background_loop_that_nobody_runs(stage: Stage) -> None:
    lost = {f"dead_loop/{loop}" for loop in LOOPS}
    await stage.beat()
    assert not lost & (await stage.banners()).keys()  # it has only just started
    stage.clock.advance(LOOP_PATIENCE.total_seconds())
    await stage.beat()
    assert not lost & (await stage.banners()).keys()  # the slowest loop may be due in this moment
    stage.clock.advance(1)
    await stage.beat()
    found = await stage.banners()
    assert lost <= found.keys()
    assert found["dead_loop/cron"]["text"] == "no live worker runs the background loop cron"
    held = [await stage.storage.leases.take(loop, HOST, LEASE) for loop in LOOPS]
    assert all(held) and not lost & (await stage.banners()).keys()
    assert held[0] is not None and await stage.storage.leases.release(held[0])
    assert lost & (await stage.banners()).keys() == {f"dead_loop/{LOOPS[0]}"}
    stage.clock.advance(LEASE.total_seconds() + 1)
    await stage.beat()
    assert lost <= (await stage.banners()).keys()


async def test_of_workers_that_are_gone_no_loop_is_expected(stage: Stage) -> None:
    await stage.beat()
    stage.clock.advance(LOOP_PATIENCE.total_seconds() + 31)
    assert not [id for id in await stage.banners() if id.startswith("dead_loop")]
    await stage.beat(OTHER_HOST)  # one that has only just started
    assert not [id for id in await stage.banners() if id.startswith("dead_loop")]


async def test_queues_and_kinds_that_nobody_serves(stage: Stage) -> None:
    await stage.storage.jobs.enqueue(EnqueueRequest(KIND, queue=QUEUE))
    assert (await stage.banners()).keys() == {f"unserved/{QUEUE}"}
    await stage.beat(kinds=("other",))
    assert f"unserved_kind/{QUEUE}/{KIND}" in await stage.banners()
    await stage.beat(kinds=("other", KIND))
    assert not [id for id in await stage.banners() if id.startswith("unserved")]
