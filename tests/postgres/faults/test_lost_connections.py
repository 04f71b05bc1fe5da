"""The server crashes, its processes are ended, the network breaks: jobs go on, each run once, and callers see nothing
of what ends within the deadline of a call."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_jobs.testing.fault_proxy import FaultProxy
from forge_jobs.testing.postgres import Server

from ..starters import StartServer
from .stage import ROLES, loaded, staged


@pytest.mark.parametrize("crashes", [2, pytest.param(12, marks=pytest.mark.slow)])
async def test_a_server_that_crashes_under_load_loses_no_job_and_none_is_run_twice(
    durable_server: StartServer, tmp_path: Path, crashes: int
) -> None:
    server = durable_server()
    async with staged(tmp_path, server.new_store()) as stage:
        with stage.workers() as cluster:
            async with loaded(stage) as load:
                for _ in range(crashes):
                    await stage.busy()
                    server.restart("immediate")
                await stage.busy()
            await stage.settled()
            assert cluster.exit_status("worker-0") is None
            assert cluster.stop("worker-0") == 0
        assert load.errors == {}
        stage.account(load)


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
async def test_each_connection_may_be_ended_by_the_server_under_load(pg18: Server, tmp_path: Path, rounds: int) -> None:
    async with staged(tmp_path, pg18.new_store()) as stage:
        with stage.workers() as cluster:
            async with loaded(stage) as load:
                for role in ROLES * rounds:
                    await stage.busy(10)
                    await stage.replaced(role, set())
                    ended = stage.backends(role)
                    stage.sql("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", list(ended))
                    await stage.replaced(role, ended)
                await stage.busy()
            await stage.settled()
            assert cluster.stop("worker-0") == 0
        assert load.errors == {}
        stage.account(load)


@pytest.mark.parametrize("cuts", [10, pytest.param(100, marks=pytest.mark.slow)])
async def test_a_network_that_breaks_again_and_again_loses_no_job_and_none_is_run_twice(
    pg15: Server, tmp_path: Path, cuts: int
) -> None:
    with FaultProxy(pg15.url) as proxy:
        async with staged(tmp_path, pg15.new_store(), through=proxy.url_through) as stage:
            with stage.workers() as cluster:
                async with loaded(stage) as load:
                    for _ in range(cuts):
                        await stage.busy(3)
                        proxy.cut()
                    await stage.busy()
                await stage.settled()
                assert cluster.stop("worker-0") == 0
            assert load.errors == {}
            stage.account(load)
