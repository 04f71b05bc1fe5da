"""Whatever stands in a queue's settings, retention goes on with the next queue."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from forge_jobs import Storage
from forge_jobs.clock import ManualClock
from forge_jobs.storage.open import sqlite_path
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.testing.conformance.arrange import add, run


@pytest.mark.parametrize("forge_backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("days", [1e308, -1e308, float("inf"), float("-inf"), 36_500.0, "a week", b"\x00"])
async def test_an_absurd_setting_does_not_keep_the_other_queues_from_being_swept(
    forge_storage: Storage, forge_url: str, forge_clock: ManualClock, caplog: pytest.LogCaptureFixture, days: Any
) -> None:
    for queue in ("a-absurd", "b-usual"):
        await add(forge_storage, queue=queue)
        await run(forge_storage, Done(), queue=queue)
    with closing(sqlite3.connect(sqlite_path(forge_url))) as foreign, foreign:
        foreign.execute("PRAGMA ignore_check_constraints=ON")
        foreign.execute("UPDATE forge_queues SET retain_done_days = ? WHERE name = 'a-absurd'", (days,))
    forge_clock.advance(8 * 86_400)
    report = await forge_storage.maintenance.cleanup()
    assert (report.done, await forge_storage.jobs.count(JobFilter(queues=("b-usual",)))) == (1, {})
    assert ("cleanup_fault queue=a-absurd" in caplog.text) == (days != 36_500.0)
