"""Whoever fires schedules is killed, frozen or has a wrong clock: each tick makes one job, and none is missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final

import pytest
import pytest_asyncio

from forge_jobs import ScheduleDeclaration, Storage, open_storage
from forge_jobs.failpoints import ENVIRONMENT
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.schedule import Tick
from forge_jobs.testing.cluster import Cluster, until
from forge_jobs.testing.postgres import Server

from .stage import QUICK, Stage
from .worker_main import CLOCK_AHEAD

FAST: Final = replace(QUICK, lease_ttl_s=0.6)
BEAT: Final = ScheduleDeclaration("beat", "brief", "* * * * * *", 0, misfire="all(1000)")
"""Every second, and what was missed is made up for: so a tick that is missing was lost."""
LONG_S: Final = 20.0
SECOND: Final = timedelta(seconds=1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def stage(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Stage]:
    """The stage with its store on either backend."""
    if request.param == "sqlite":
        yield stage
        return
    server: Server = request.getfixturevalue("server")
    stage.url = server.new_database()
    yield stage
    server.drop_database(stage.url)


@pytest_asyncio.fixture
async def storage(stage: Stage) -> AsyncIterator[Storage]:
    async with open_storage(stage.url) as opened:
        await opened.schedules.add(BEAT)
        yield opened


async def fired(storage: Storage) -> list[Tick]:
    """What made a job, oldest first."""
    found = [one for one in await storage.schedules.ticks("beat", limit=1_000) if one.outcome == "fired"]
    return found[::-1]


async def more(storage: Storage, than: int) -> list[Tick]:
    """The ticks once there are more than so many."""

    async def there() -> list[Tick] | None:
        found = await fired(storage)
        return found if len(found) > than else None

    found = await until(there, within_s=LONG_S, what=f"more than {than} ticks")
    assert found is not None
    return found


async def one_job_for_each(storage: Storage) -> list[Tick]:
    """Every second has its tick, and every tick its own job; nobody fires any more."""
    ticks = await fired(storage)
    page = await storage.jobs.list_jobs(JobFilter(kinds=("brief",)), limit=1_000)
    assert Counter(job.id for job in page.items) == Counter(tick.job_id for tick in ticks)
    seconds = [tick.fire_at for tick in ticks]
    assert seconds == [seconds[0] + n * SECOND for n in range(len(seconds))]
    return ticks


async def when_leading(storage: Storage) -> None:
    async def led() -> bool:
        return any(lease.name == "cron" for lease in await storage.leases.list())

    await until(led, within_s=LONG_S, what="a leader")


def started(cluster: Cluster, name: str) -> bool:
    return "worker_started" in cluster.log(name)


@pytest.mark.parametrize("place", ["cron.before_commit", "cron.after_commit"])
async def test_a_leader_killed_inside_a_tick_neither_loses_nor_doubles_it(
    stage: Stage, storage: Storage, place: str
) -> None:
    with stage.cluster(0, config=FAST) as cluster:
        leader = cluster.start(environment={ENVIRONMENT: f"{place}=kill"})
        await when_leading(storage)
        other = cluster.start()
        await until(lambda: cluster.exit_status(leader) is not None, within_s=LONG_S)
        assert cluster.exit_status(leader) == -9
        await more(storage, len(await fired(storage)))
        assert cluster.stop(other) == 0
    await one_job_for_each(storage)


async def test_a_leader_frozen_with_a_plan_in_its_hand_changes_nothing_when_it_comes_back(
    stage: Stage, storage: Storage
) -> None:
    with stage.cluster(0, config=FAST) as cluster:
        leader = cluster.start(environment={ENVIRONMENT: "cron.planned=stop"})
        await when_leading(storage)
        other = cluster.start()
        await until(lambda: cluster.is_frozen(leader), within_s=LONG_S)
        cluster.freeze(leader)  # for good, should another thread of it have held the lock of the file
        await more(storage, 1)  # the first tick was the frozen leader's
        cluster.thaw(leader)
        await until(lambda: "lease_lost" in cluster.log(leader), within_s=LONG_S)
        await more(storage, len(await fired(storage)))
        assert cluster.stop(leader) == 0
        assert cluster.stop(other) == 0
    await one_job_for_each(storage)


@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
async def test_clocks_that_are_minutes_off_make_no_tick_early_late_or_twice(stage: Stage, storage: Storage) -> None:
    """The server's time decides, whatever the hosts of its workers show."""
    with stage.cluster(0, config=FAST) as cluster:
        names = [cluster.start(environment={CLOCK_AHEAD: skew}) for skew in ("300", "-300")]
        for name in names:
            await until(partial(started, cluster, name), within_s=LONG_S)
        for name in names:  # each leads for a while
            await more(storage, len(await fired(storage)))
            assert cluster.stop(name) == 0
    ticks = await one_job_for_each(storage)
    assert all(timedelta(0) <= tick.at - tick.fire_at < 10 * SECOND for tick in ticks)
