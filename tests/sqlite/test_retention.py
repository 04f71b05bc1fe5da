"""Whatever stands in a queue's settings, retention goes on with the next queue."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import open_storage
from forge_jobs.clock import ManualClock
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.testing.conformance.arrange import add, run


@pytest.mark.parametrize("days", [1e308, -1e308, float("inf"), float("-inf"), 36_500.0, "a week", b"\x00"])
async def test_an_absurd_setting_does_not_keep_the_other_queues_from_being_swept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days: Any
) -> None:
    clock, database = ManualClock(), tmp_path / "jobs.db"
    async with open_storage(f"sqlite:///{database}", clock=clock) as storage:
        for queue in ("a-absurd", "b-usual"):
            await add(storage, queue=queue)
            await run(storage, Done(), queue=queue)
        with closing(sqlite3.connect(database)) as foreign, foreign:
            foreign.execute("PRAGMA ignore_check_constraints=ON")
            foreign.execute("UPDATE forge_queues SET retain_done_days = ? WHERE name = 'a-absurd'", (days,))
        clock.advance(8 * 86_400)
        report = await storage.maintenance.cleanup()
        assert (report.done, await storage.jobs.count(JobFilter(queues=("b-usual",)))) == (1, {})
        assert ("cleanup_fault queue=a-absurd" in caplog.text) == (days != 36_500.0)
