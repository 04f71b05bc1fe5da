"""A server that is far away, that holds locks, or that says nothing any more."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from forge_jobs import (
    Busy,
    EnqueueRequest,
    HandlerRegistry,
    JobCtx,
    OutcomeUnknown,
    QueueRuntime,
    StoreUnavailable,
)
from forge_jobs.ids import new_id
from forge_jobs.testing.cluster import until
from forge_jobs.testing.fault_proxy import FaultProxy
from forge_jobs.testing.postgres import Server

from .stage import HEALED_S, QUICK, ROLES, loaded, staged

FAR = replace(QUICK, heartbeat_s=3.0, stale_s=15.0)
"""A beat is five round trips, and its connection takes some too."""
LOCKED_S = 3.0


@pytest.mark.slow
async def test_two_hundred_milliseconds_away_everything_works_and_nobody_fences_itself(
    pg18: Server, tmp_path: Path
) -> None:
    with FaultProxy(pg18.url) as proxy:
        async with staged(tmp_path, pg18.new_store(), through=proxy.url_through) as stage:
            proxy.delay(to_server_s=0.1, to_client_s=0.1)
            with stage.workers(config=FAR, slots=20) as cluster:
                async with loaded(stage) as load:
                    await stage.busy(15)
                    (process,) = await stage.storage.processes.list(FAR.stale_after)

                    async def beats_on() -> bool:
                        (now,) = await stage.storage.processes.list(FAR.stale_after)
                        return now.heartbeat_at > process.heartbeat_at and now.live

                    await until(beats_on, within_s=HEALED_S, what="one more beat")
                await stage.settled()
                said = cluster.log("worker-0")
                assert cluster.stop("worker-0", within_s=20) == 0
            assert load.errors == {}
            assert "beat_refused" not in said
            assert "fenced" not in said
            stage.account(load)


async def test_a_black_hole_is_left_and_jobs_go_on_when_it_ends(pg15: Server, tmp_path: Path) -> None:
    """It lasts longer than a statement may take and longer than the stale threshold."""
    with FaultProxy(pg15.url) as proxy:
        async with staged(tmp_path, pg15.new_store(), through=proxy.url_through) as stage:
            with stage.workers() as cluster:
                async with loaded(stage) as load:
                    await stage.busy()
                    proxy.freeze()
                    await stage.said(cluster, "worker-0", "connection_cut")
                    assert "fenced: no heartbeat" in cluster.log("worker-0")
                    proxy.thaw()
                    await stage.busy()
                await stage.settled()
                assert cluster.stop("worker-0") == 0
            assert load.errors.keys() <= {"OutcomeUnknown", "StoreUnavailable"}
            stage.account(load)


async def test_connections_whose_server_process_hangs_are_replaced(pg18: Server, tmp_path: Path) -> None:
    """As when a firewall forgets them: the old ones never answer, new ones work."""
    async with staged(tmp_path, pg18.new_store()) as stage:
        with stage.workers() as cluster:
            async with loaded(stage) as load:
                await stage.busy()
                hung = {role: stage.backends(role) for role in ROLES}
                assert all(hung.values())
                for pid in set().union(*hung.values()):
                    os.kill(pid, signal.SIGSTOP)
                try:
                    for role in ROLES:
                        await stage.replaced(role, hung[role])
                finally:
                    for pid in set().union(*hung.values()):
                        os.kill(pid, signal.SIGCONT)
                await stage.busy()
            await stage.settled()
            assert cluster.stop("worker-0") == 0
        assert load.errors.keys() <= {"Busy", "OutcomeUnknown", "StoreUnavailable"}
        stage.account(load)


async def test_a_table_locked_for_seconds_delays_jobs_and_loses_none(pg15: Server, tmp_path: Path) -> None:
    async with staged(tmp_path, pg15.new_store()) as stage:
        with stage.workers() as cluster:
            async with loaded(stage) as load:
                await stage.busy()
                with stage.locked("forge.jobs"):
                    ended = len(stage.read("end"))
                    locked = time.monotonic()
                    await until(lambda: time.monotonic() - locked > LOCKED_S)
                    assert len(stage.read("end")) <= ended + 8, "no more than the slots held"
                await stage.busy()
            await stage.settled()
            assert cluster.stop("worker-0") == 0
        assert load.errors == {}, "it was shorter than a call may take"
        stage.account(load)


async def test_a_table_locked_for_longer_than_a_call_may_take_is_told_and_the_call_can_be_repeated(
    pg18: Server, tmp_path: Path
) -> None:
    async with staged(tmp_path, pg18.new_store()) as stage, stage.caller(1.0) as storage:
        request = EnqueueRequest("brief", queue="default", id=new_id())
        with stage.locked("forge.jobs"), pytest.raises((Busy, OutcomeUnknown)):
            await storage.jobs.enqueue(request)
        assert (await storage.jobs.enqueue(request)).id == request.id
        assert stage.jobs().keys() == {request.id}


async def test_a_server_that_is_down_is_told_to_callers_as_unavailable(pg15: Server, tmp_path: Path) -> None:
    request = EnqueueRequest("brief", queue="default")
    with FaultProxy(pg15.url) as proxy:
        through = proxy.url_through
        async with staged(tmp_path, pg15.new_store(), through=through) as stage, stage.caller(3.0) as storage:
            await storage.jobs.enqueue(request)
            proxy.refuse()
            proxy.cut()
            calls = [*(storage.jobs.enqueue(request) for _ in range(3)), storage.queues.counts()]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreUnavailable] * 4
            proxy.accept()
            await storage.jobs.enqueue(request)
            assert len(stage.jobs()) == 2


async def test_a_handlers_transaction_on_a_server_that_hangs_ends_and_its_job_is_tried_again(
    pg18: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.storage.LONGEST_S", 1.0)
    monkeypatch.setattr("forge_jobs.storage.postgres.session.LONGEST_S", 1.0)
    handlers = HandlerRegistry()
    hung: set[int] = set()
    async with staged(tmp_path, pg18.new_store()) as stage, stage.caller() as storage:

        @handlers.handler("pay", backoff=[0.1])
        async def pay(ctx: JobCtx) -> None:
            async with ctx.transaction() as tx:
                if ctx.fence == 1:
                    hung.update(stage.backends("transaction"))
                    for pid in hung:
                        os.kill(pid, signal.SIGSTOP)
                await tx.execute("SELECT 1")

        job_id = (await storage.jobs.enqueue(EnqueueRequest("pay", queue="default"))).id
        runtime = QueueRuntime(storage, handlers, queues=["default"], slots=1, config=QUICK)
        await runtime.start()
        try:
            await until(lambda: stage.jobs()[job_id].status == "done", within_s=HEALED_S)
        finally:
            for pid in hung:
                os.kill(pid, signal.SIGCONT)
            await runtime.stop()
        assert (stage.jobs()[job_id].attempts, stage.jobs()[job_id].crashes) == (2, 0)
