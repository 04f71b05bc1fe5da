"""Workers that die, freeze, or lose their server for longer than the stale threshold."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from forge_jobs.testing.cluster import Cluster, until
from forge_jobs.testing.postgres import Server
from process.stage import put, when

from ..starters import StartServer
from .stage import HEALED_S, QUICK, Stage, loaded, staged

IMPATIENT = replace(QUICK, heartbeat_s=0.2, stale_s=2.0, reaper_s=0.2)


@pytest.mark.parametrize("kills", [2, pytest.param(15, marks=pytest.mark.slow)])
async def test_workers_killed_under_load_cost_no_job_and_only_the_runs_in_their_hands(
    pg15: Server, tmp_path: Path, kills: int
) -> None:
    async with staged(tmp_path, pg15.new_store()) as stage:
        with stage.workers(2, config=IMPATIENT) as cluster:
            async with loaded(stage, payload=0.05) as load:
                for number in range(kills):
                    await stage.busy()
                    cluster.kill(f"worker-{number}")
                    cluster.start()
                await stage.busy()
            await stage.settled()
        account = stage.account(load, crashes=True)
        assert 0 < account.crashes <= kills * 8, "a killed worker had at most its slots in its hands"


async def test_a_worker_frozen_for_twice_the_stale_threshold_changes_nothing_on_a_server(
    pg18: Server, tmp_path: Path
) -> None:
    async with staged(tmp_path, pg18.new_store()) as stage:
        with stage.workers(2, config=IMPATIENT) as cluster:
            job_id = await put(stage.storage, "long", 60)
            owner = await owner_of(stage, cluster, job_id)
            async with loaded(stage) as load:
                load.tried.add(job_id)
                await stage.busy()
                cluster.freeze(owner)
                frozen = time.monotonic()
                settled = await when(stage.storage, job_id, "done", within_s=HEALED_S)
                await until(lambda: time.monotonic() - frozen > 2 * IMPATIENT.stale_s, within_s=HEALED_S)
                cluster.thaw(owner)
                await until(lambda: stage.read("told"), within_s=HEALED_S)
                await stage.busy()
            await stage.settled()
            after = await stage.storage.jobs.get(job_id)
            assert after is not None
            assert (after.row, after.history) == (settled.row, settled.history), "the late owner changed nothing"
            assert [cluster.stop(name) for name in cluster.names] == [0, 0], "it works on without a restart"
        assert [entry.note for entry in stage.read("told")] == ["lost_ownership"]
        fences = [(entry.fence, entry.what) for entry in stage.read("start", "told") if entry.job == job_id]
        assert fences == [(1, "start"), (3, "start"), (1, "told")]
        stage.account(load, crashes=True)


async def test_workers_outlive_a_server_that_is_down_for_longer_than_the_stale_threshold(
    durable_server: StartServer, tmp_path: Path
) -> None:
    """They fence themselves, and take up work again without a restart; what ran through it is still theirs."""
    server = durable_server()
    async with staged(tmp_path, server.new_store()) as stage:
        with stage.workers(2) as cluster:
            await until(lambda: both_are_up(stage), within_s=HEALED_S)
            through = await put(stage.storage, "brief", 8.0)
            heeding = await put(stage.storage, "long", 60)
            await until(lambda: len(stage.read("start")) == 2, within_s=HEALED_S)
            async with loaded(stage) as load:
                load.tried |= {through, heeding}
                await stage.busy()
                server.stop("immediate")
                for name in cluster.names:
                    await stage.said(cluster, name, "fenced: no heartbeat")
                assert [entry.note for entry in stage.read("told")] == ["lost_ownership"]
                server.start()
                await stage.busy()
            await stage.settled()
            for name in cluster.names:
                await stage.said(cluster, name, "unfenced")
            assert [cluster.stop(name) for name in cluster.names] == [0, 0]
        assert stage.runs()[through] == 1, "it did not heed the signal, and ended while the fence was still its own"
        assert load.errors.keys() <= {"StoreUnavailable"}
        stage.account(load)


async def both_are_up(stage: Stage) -> bool:
    """Whether both workers have started: a server that is gone before ends them."""
    found = await stage.storage.processes.list(timedelta(seconds=30))
    return sum(row.live for row in found) == 2


async def owner_of(stage: Stage, cluster: Cluster, job_id: str) -> str:
    """The worker that runs the job."""
    (start,) = await until(lambda: [entry for entry in stage.read("start") if entry.job == job_id], within_s=HEALED_S)
    return next(name for name in cluster.names if cluster.pid(name) == start.pid)
