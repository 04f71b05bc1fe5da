"""Worker processes whose clock the test moves, on both backends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.testing import Cluster, SharedClock, until

from .stage import Stage

APP = """
import forge_jobs

handlers = forge_jobs.HandlerRegistry()

@handlers.handler("remind")
async def remind(ctx): ...
"""


@pytest.mark.parametrize("place", ["on_a_file", "on_postgresql"])
async def test_time_is_moved_for_every_worker_at_once(place: str, request: pytest.FixtureRequest) -> None:
    stage: Stage = request.getfixturevalue(place)
    (stage.folder / "reminders.py").write_text(APP)
    clock = SharedClock(stage.folder / "clock")
    async with open_storage(stage.url, clock=clock) as storage:
        added = await storage.jobs.enqueue(EnqueueRequest("remind", queue="default", delay=7200))

        async def status() -> str:
            detail = await storage.jobs.get(added.id)
            return detail.row.status if detail else "gone"

        async def everyone_works() -> bool:
            return len(await storage.processes.list(timedelta(hours=3))) == 2

        async def is_done() -> bool:
            return await status() == "done"

        with Cluster(
            stage.url, "reminders:handlers", folder=stage.folder, workers=2, directory=stage.folder, clock=clock
        ) as cluster:
            await until(everyone_works, within_s=20)
            cluster.advance("1h")
            assert await status() == "pending"
            cluster.advance("1h")
            await until(is_done, within_s=10)
            assert await everyone_works()


def test_workers_with_the_clock_of_the_host_cannot_be_moved(on_a_file: Stage) -> None:
    with (
        Cluster(on_a_file.url, "reminders:handlers", folder=on_a_file.folder, workers=0) as cluster,
        pytest.raises(ValueError, match="clock=SharedClock"),
    ):
        cluster.advance("1h")


def test_time_does_not_pass_backwards(on_a_file: Stage) -> None:
    clock = SharedClock(on_a_file.folder / "clock")
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
