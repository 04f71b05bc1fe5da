"""Worker processes: who is alive, and forgetting those who are not."""

from __future__ import annotations

from datetime import timedelta

from forge_jobs.clock import ManualClock
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessState
from forge_jobs.testing.conformance.arrange import STALE, add, claimed, read, take_one
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, OTHER_HOST, make_process


class TestProcesses:
    async def test_nobody_works_on_a_new_store(self, storage: Storage) -> None:
        assert await storage.processes.list(STALE) == []

    async def test_a_beat_writes_the_process_whole(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        process = make_process(
            label="näme, with comma", queues=("b", "a"), kinds=("x", "y.z:1"), slots={"b": 2, "a": 0},
            running={"b-0-" + HOST: "01J00000000000000000000001"}, state=ProcessState.DRAINING, loop_lag_ms=12.5,
        )  # fmt: skip
        await beater.beat(process)
        (row,) = await storage.processes.list(STALE)
        assert row.info == process
        assert row.started_at == row.heartbeat_at == clock.now()

    async def test_later_beats_update_it_and_keep_its_start(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        started = clock.now()
        await beater.beat(make_process())
        clock.advance(5)
        await beater.beat(make_process(state=ProcessState.FENCED, kinds=()))
        (row,) = await storage.processes.list(STALE)
        assert (row.info.state, row.info.kinds) == (ProcessState.FENCED, ())
        assert (row.started_at, row.heartbeat_at) == (started, clock.now())

    async def test_a_process_is_live_while_its_beat_is_young(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await beater.beat(make_process(HOST))
        clock.advance(20)
        await beater.beat(make_process(OTHER_HOST))
        clock.advance(15)
        assert [(row.info.host_id, row.live) for row in await storage.processes.list(STALE)] == [
            (HOST, False), (OTHER_HOST, True),
        ]  # fmt: skip

    async def test_a_row_removed_in_error_comes_back_whole(self, storage: Storage, beater: Beater) -> None:
        process = make_process(label="one")
        await beater.beat(process)
        await storage.processes.remove(HOST)
        assert await storage.processes.list(STALE) == []
        await beater.beat(process)
        assert [row.info for row in await storage.processes.list(STALE)] == [process]

    async def test_removing_a_process_that_is_not_there_is_harmless(self, storage: Storage) -> None:
        await storage.processes.remove(HOST)

    async def test_long_silent_processes_are_forgotten(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await beater.beat(make_process(HOST))
        clock.advance(200)
        await beater.beat(make_process(OTHER_HOST))
        clock.advance(200)
        assert await storage.processes.prune(timedelta(seconds=300)) == 1
        assert [row.info.host_id for row in await storage.processes.list(STALE)] == [OTHER_HOST]

    async def test_forgetting_a_process_leaves_its_jobs_to_the_reaper(self, storage: Storage, beater: Beater) -> None:
        await add(storage)
        job = await take_one(storage)
        await beater.beat(make_process(), *claimed([job]))
        before = await read(storage, job.id)
        await storage.processes.remove(HOST)
        after = await read(storage, job.id)
        assert (after.status, after.fence, after.host_id) == (before.status, before.fence, HOST)

    async def test_a_running_job_shows_its_workers_label(self, storage: Storage, beater: Beater) -> None:
        await add(storage)
        job = await take_one(storage)
        await beater.beat(make_process(label="mailer-1"), *claimed([job]))
        assert (await read(storage, job.id)).worker == "mailer-1"
