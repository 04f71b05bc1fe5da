"""One 429 quiets every worker of its queue at once, and all of them go on when the cool-down is over."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from forge_jobs import EnqueueRequest, Storage
from forge_jobs.testing.cluster import until

from .stage import QUICK, Stage, all_finished, put

WORKERS: Final = 3
COOL_DOWN_S: Final = 1.0
COMMIT_S: Final = 0.3
"""What a loaded machine may take from the handler's answer to its commit."""
LATE_S: Final = 0.8
NEVER_BY_POLLING: Final = replace(QUICK, poll_ms=10_000)


@pytest.fixture(params=["sqlite", "postgresql"])
def stage(request: pytest.FixtureRequest) -> Stage:
    """A file, and a database of a server."""
    found = request.getfixturevalue("on_a_file" if request.param == "sqlite" else "on_postgresql")
    assert isinstance(found, Stage)
    return found


async def test_a_throttle_stops_all_workers_at_once_and_none_is_late_when_it_ends(
    stage: Stage, storage: Storage
) -> None:
    with stage.cluster(WORKERS, slots=2, config=NEVER_BY_POLLING):
        await until(lambda: _live(storage, WORKERS), within_s=20, what="all workers up")
        await storage.jobs.enqueue_bulk([EnqueueRequest("brief", 0.02, queue="default") for _ in range(400)])
        throttled = await put(storage, "refused_once", COOL_DOWN_S, priority=-1)
        counts = await all_finished(storage, within_s=30)
    assert counts == {"done": 401}
    refused = next(entry for entry in stage.read("refused") if entry.job == throttled)
    starts = [(entry.at - refused.at, entry.pid) for entry in stage.read("start")]
    assert [at for at, _ in starts if at < 0], "they were at work"
    assert [at for at, _ in starts if COMMIT_S < at < COOL_DOWN_S] == []
    resumed = {pid for at, pid in starts if COOL_DOWN_S <= at < COOL_DOWN_S * 1.1 + LATE_S}
    assert len(resumed) == WORKERS, "all of them went on by themselves"
    assert {entry.attempt for entry in stage.read("start") if entry.job == throttled} == {1}


async def _live(storage: Storage, count: int) -> bool:
    return len([row for row in await storage.processes.list(QUICK.stale_after) if row.live]) == count
