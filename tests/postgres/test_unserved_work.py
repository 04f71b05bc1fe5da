"""Work that nobody takes is said aloud."""

from __future__ import annotations

import logging

import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime, open_storage
from forge_jobs.runtime.loops import unserved
from forge_jobs.runtime.unserved import Unserved


async def test_queues_and_kinds_that_nobody_serves_are_logged(database: str, caplog: pytest.LogCaptureFixture) -> None:
    handlers = HandlerRegistry()

    @handlers.handler("known")
    async def known(ctx: JobCtx) -> None: ...

    async with open_storage(database) as storage:
        await storage.jobs.enqueue_bulk(
            [
                EnqueueRequest("known", queue="default", delay=3_600),
                *(EnqueueRequest("unheard-of", n, queue="default") for n in range(3)),
                *(EnqueueRequest("known", n, queue="elsewhere", delay=3_600) for n in range(2)),
                EnqueueRequest("known", queue="paused"),
            ]
        )
        await storage.queues.pause("paused")
        runtime = QueueRuntime(storage, handlers, queues=["default"], slots=1)
        await runtime.start()
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert await unserved.tick(runtime.env) == [
                Unserved(queue="default", kind="unheard-of", jobs=3),
                Unserved(queue="elsewhere", kind=None, jobs=2),
            ]
        await runtime.stop()
    assert [record.getMessage() for record in caplog.records if record.name == "forge_jobs.unserved"] == [
        "kind_unserved queue=default kind=unheard-of jobs=3",
        "queue_unserved queue=elsewhere jobs=2",
    ]
