"""`/readyz` of a server that runs jobs too tells of the worker's progress, as the worker's own does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import HandlerRegistry, QueueRuntime, RuntimeConfig, StoreConfig, open_storage
from forge_jobs.api import ApiConfig, create_app
from forge_jobs.api.guard import Guard
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.sqlite.turnstile import Turnstile
from forge_jobs.testing.cluster import until

from .stage import caller, guarded, local

QUICK = RuntimeConfig(heartbeat_s=0.1, stale_s=1.0, reaper_s=0.2, supervisor_s=0.05, poll_ms=20, shutdown_grace_s=0.3)


@dataclass(frozen=True, slots=True)
class Stage:
    storage: Storage
    runtime: QueueRuntime


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A runtime that was not started yet, and its store."""
    config = StoreConfig(store_deadline_s=0.5)
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db", config=config) as storage:
        handlers = HandlerRegistry()

        @handlers.handler("echo")
        async def echo(payload: object) -> None:
            pass

        made = QueueRuntime(storage, handlers, slots=2, config=QUICK)
        yield Stage(storage, made)
        if made.readiness(0)["heartbeat"] is not None:  # it was started
            await made.stop(0)


async def ready(app: Guard) -> tuple[int, dict[str, Any]]:
    async with local(app) as client:
        response = await client.get("/readyz")
        return response.status_code, response.json()


async def test_it_is_ready_while_its_worker_beats_and_asks_for_jobs(stage: Stage) -> None:
    app = create_app(stage.storage, ApiConfig(runtime=stage.runtime))
    status, told = await ready(app)
    assert (status, told["status"], told["problems"]) == (503, "not_ready", ["it was not started yet"])
    await stage.runtime.start()
    status, told = await ready(app)
    assert (status, told["status"], told["problems"], told["store"]) == (200, "ok", [], "ok")
    assert told["heartbeat"]["age_s"] < QUICK.stale_s and "reaper" in told["loops"]


async def test_a_worker_that_exists_and_makes_no_progress_is_not_ready(stage: Stage, tmp_path: Path) -> None:
    await stage.runtime.start()
    app = create_app(stage.storage, ApiConfig(runtime=stage.runtime))
    frozen = Turnstile(tmp_path / "jobs.db")
    frozen.enter()
    try:

        async def says_why() -> bool:
            status, told = await ready(app)
            words = " ".join(told["problems"])
            assert told["store"] == "ok"  # it can be read
            return status == 503 and "heartbeat" in words and "has not asked for jobs" in words

        await until(says_why)
    finally:
        frozen.leave()
        frozen.close()

    async def ready_again() -> bool:
        return (await ready(app))[0] == 200

    await until(ready_again)


async def test_strangers_are_told_whether_and_not_why(stage: Stage, tmp_path: Path) -> None:
    await stage.runtime.start()
    app = guarded(stage.storage, tmp_path, runtime=stage.runtime)
    async with caller(app) as stranger, caller(app, "read") as reader:
        assert (await stranger.get("/readyz")).json() == {"status": "ok"}
        assert (await reader.get("/readyz")).json()["problems"] == []
        stage.runtime.request_stop()
        told = await stranger.get("/readyz")
        assert (told.status_code, told.json()) == (503, {"status": "not_ready"})
        assert (await reader.get("/readyz")).json()["problems"] == ["it is shutting down"]
