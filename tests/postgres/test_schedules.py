"""Schedules on a server that goes away and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from forge_jobs import (
    HandlerRegistry,
    QueueRuntime,
    RuntimeConfig,
    ScheduleDeclaration,
    Storage,
    StoreConfig,
    failpoints,
    open_storage,
)
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.schedule import ScheduleState, Tick
from forge_jobs.testing.cluster import until
from forge_jobs.testing.fault_proxy import FaultProxy

from .conftest import VERSIONS

BEAT: Final = ScheduleDeclaration("beat", "nobody", "* * * * * *", misfire="all(1000)")
STORE: Final = StoreConfig(store_deadline_s=1.0, notify=False)
RUNTIME: Final = replace(RuntimeConfig(), heartbeat_s=0.5, stale_s=30, supervisor_s=0.2)
LONG_S: Final = 20.0


async def fired(storage: Storage) -> list[Tick]:
    found = [one for one in await storage.schedules.ticks("beat", limit=1_000) if one.outcome == "fired"]
    return found[::-1]


async def more(storage: Storage, than: int) -> bool:
    return len(await fired(storage)) > than


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.disarm()


@pytest.mark.parametrize("fault", ["outage", "lost statement", "lost answer to a commit"])
@pytest.mark.parametrize("server", [VERSIONS[-1]], ids="postgresql-{}".format, indirect=True)
async def test_no_tick_is_lost_or_doubled_when_the_server_does_not_answer(
    database: str, proxy: FaultProxy, fault: str
) -> None:
    async with (
        open_storage(database) as watching,
        open_storage(proxy.url_through(database), config=STORE) as storage,
    ):
        await watching.schedules.add(BEAT)
        runtime = QueueRuntime(storage, HandlerRegistry(), config=RUNTIME)
        await runtime.start()
        health = runtime.env.health.loops
        if fault == "lost statement":
            proxy.swallow_answer_after(b"ticks (schedule, fire_at")
        try:
            await until(lambda: more(watching, 0), within_s=LONG_S)
            if fault == "outage":
                before = health["cron"].errors
                proxy.refuse()
                proxy.cut()
                await until(lambda: health["cron"].errors > before, within_s=LONG_S)
                proxy.accept()
            elif fault == "lost statement":
                await until(lambda: proxy.traffic.swallowed > 0, within_s=LONG_S)
            else:
                failpoints.arm("cron.after_commit", "error")  # the next tick meets it
            seen = len(await fired(watching))
            await until(lambda: more(watching, seen + 1), within_s=LONG_S)
        finally:
            await runtime.stop(0)
        ticks = await fired(watching)
        seconds = [tick.fire_at for tick in ticks]
        assert seconds == [seconds[0] + timedelta(seconds=n) for n in range(len(seconds))]
        page = await watching.jobs.list_jobs(JobFilter(kinds=("nobody",)), limit=1_000)
        assert {job.id for job in page.items} == {tick.job_id for tick in ticks}
        assert page.total == len(ticks)
        stored = await watching.schedules.get("beat")
        assert stored is not None
        assert stored.state is ScheduleState.ACTIVE
