"""Lines of jobs on a server: they wait for nobody, and no job goes away under them."""

from __future__ import annotations

import logging
from contextlib import closing

import psycopg

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime, open_storage
from forge_jobs.storage.types.finalize import APPLIED_DONE, Done, Finalize
from forge_jobs.storage.types.log import NewLine, RunLog
from forge_jobs.testing.conformance.arrange import add_many, take

LINE = NewLine(1_000, 1, "INFO", "app", "said", 4)


async def test_lines_of_a_job_that_somebody_has_wait_and_the_others_are_written(database: str) -> None:
    async with open_storage(database) as storage:
        await add_many(storage, 2)
        jobs = await take(storage, 2)
        runs = [RunLog(job_id=job.id, fence=job.fence, attempt=1, lines=[LINE]) for job in jobs]
        with closing(psycopg.connect(database)) as other:
            other.execute("SELECT id FROM forge.jobs WHERE id = %s FOR UPDATE", (jobs[0].id,))
            assert await storage.logs.append(runs) == {jobs[0].id}
            assert [len(await storage.logs.of_job(job.id)) for job in jobs] == [0, 1]
            other.rollback()
        assert await storage.logs.append(runs) == set()
        assert [len(await storage.logs.of_job(job.id)) for job in jobs] == [1, 1]


async def test_a_job_is_done_at_once_while_its_lines_are_being_written(database: str) -> None:
    async with open_storage(database) as storage:
        await add_many(storage, 1)
        (job,) = await take(storage)
        with closing(psycopg.connect(database)) as writer:
            writer.execute("SELECT id FROM forge.jobs WHERE id = %s FOR KEY SHARE", (job.id,))
            exchange = await storage.jobs.settle_and_claim([Finalize(job.id, job.fence, Done(), job)])
        assert exchange.settled == (APPLIED_DONE,)


async def test_a_worker_on_a_server_keeps_what_its_handlers_log(database: str) -> None:
    handlers = HandlerRegistry()
    app = logging.getLogger("app")

    @handlers.handler("k", backoff=(1,))
    async def k(ctx: JobCtx) -> None:
        ctx.log.info("ünicode \x00 and %s", "\x1b[31m")
        app.warning("attempt %d", ctx.attempt)

    async with open_storage(database) as storage:
        job = await storage.jobs.enqueue(EnqueueRequest("k", queue="default"))
        await QueueRuntime(storage, handlers).drain()
        assert [(one.logger, one.message) for one in await storage.logs.of_job(job.id)] == [
            ("forge_jobs.job", "ünicode \ufffd and \x1b[31m"),
            ("app", "attempt 1"),
        ]
