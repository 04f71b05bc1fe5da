"""What a handler logs bears the fields of its job, and is kept for it."""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from forge_jobs import EnqueueRequest, JobCtx, QueueRuntime, limits
from forge_jobs.runtime import job_log
from forge_jobs.runtime.job_log import Lines
from forge_jobs.runtime.loops import job_log as loop
from forge_jobs.storage.error import Busy
from forge_jobs.storage.types.log import LogLine
from forge_jobs.testing.cluster import until

from .world import World

app = logging.getLogger("app.orders")


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    app.setLevel(logging.INFO)
    yield
    app.setLevel(logging.NOTSET)


class Kept(logging.Handler):
    """A user's own handler."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def log_of(world: World, job_id: str, runtime: QueueRuntime) -> list[LogLine]:
    await loop.tick(runtime.env)
    return await world.storage.logs.of_job(job_id)  # type: ignore[arg-type]


async def run(world: World, kind: str, **fields: Any) -> list[LogLine]:
    """One job of this kind from start to end; its log."""
    runtime = await world.work()
    job_id = await world.put(kind, **fields)
    await world.when(job_id, "done", "dead")
    return await log_of(world, job_id, runtime)


class TestKept:
    async def test_lines_of_any_logger_are_kept_from_info_on(self, world: World) -> None:
        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            ctx.log.info("by %s", "ctx")
            app.info("by a module")
            app.debug("too quiet")
            app.error("badly")

        found = await run(world, "k")
        assert [(one.level, one.logger, one.message) for one in found] == [
            ("INFO", "forge_jobs.job", "by ctx"),
            ("INFO", "app.orders", "by a module"),
            ("ERROR", "app.orders", "badly"),
        ]
        assert {(one.kind, one.queue, one.attempt, one.fence) for one in found} == {("k", "default", 1, 1)}

    async def test_tasks_and_threads_of_a_handler_belong_to_its_job(self, world: World) -> None:
        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.to_thread(app.info, "in a thread"))
                tasks.create_task(asyncio.sleep(0)).add_done_callback(lambda _: app.info("in a callback"))
            stray = threading.Thread(target=without_context, args=(ctx,))
            stray.start()
            await asyncio.to_thread(stray.join)

        def without_context(ctx: JobCtx) -> None:
            ctx.log.info("of the job")
            app.info("of nobody")

        assert {one.message for one in await run(world, "k")} == {"in a thread", "in a callback", "of the job"}

    async def test_jobs_at_the_same_time_are_told_apart(self, world: World) -> None:
        @world.handlers.handler("k")
        async def k(ctx: JobCtx, payload: int) -> None:
            for _ in range(3):
                app.info("job %d", payload)
                await asyncio.sleep(0)

        runtime = await world.work(slots=5)
        ids = [await world.put("k", number) for number in range(5)]
        for job_id in ids:
            await world.when(job_id, "done")
        for number, job_id in enumerate(ids):
            assert [one.message for one in await log_of(world, job_id, runtime)] == [f"job {number}"] * 3

    async def test_the_last_lines_of_a_failed_run_are_kept_though_the_next_began(self, world: World) -> None:
        @world.handlers.handler("k", backoff=(0.01,))
        async def k(ctx: JobCtx) -> None:
            app.info("attempt %d", ctx.attempt)
            raise ValueError

        assert [one.message for one in await run(world, "k", max_attempts=3)] == ["attempt 1", "attempt 2", "attempt 3"]

    async def test_an_exception_is_kept_with_its_traceback_and_odd_text_is_cleaned(self, world: World) -> None:
        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            try:
                raise KeyError("lost")
            except KeyError:
                ctx.log.exception("no %s", "luck")
            app.info("nul \x00; %s", "x" * 10_000)

        first, second = await run(world, "k")
        assert first.message.startswith("no luck\nTraceback")
        assert first.message.endswith("KeyError: 'lost'")
        assert second.message.startswith("nul \ufffd; xxx")
        assert len(second.message.encode()) <= limits.LOG_LINE_BYTES
        assert "bytes cut" in second.message

    async def test_a_flood_costs_a_bounded_number_of_lines_and_says_how_many_went(self, world: World) -> None:
        waiting: list[int] = []

        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            for number in range(5_000):
                app.info("line %d", number)
            run_ = ctx._run
            assert run_.log_lines is not None
            waiting.append(run_.log_lines.size)

        found = await run(world, "k")
        assert len(found) == limits.LOG_LINES
        assert found[-1].message == "line 4999"
        assert sum(one.skipped for one in found) == 5_000 - limits.LOG_LINES
        assert waiting[0] <= limits.LOG_BYTES
        assert world.storage.observer.counts("log_lines_dropped") == {(): 5_000 - limits.LOG_LINES}

    async def test_a_stopping_runtime_writes_what_it_has(self, world: World) -> None:
        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            app.info("near the end")

        runtime = await world.work()
        job_id = await world.put("k")
        await world.when(job_id, "done")
        await runtime.stop()
        assert [one.message for one in await world.storage.logs.of_job(job_id)] == ["near the end"]

    async def test_what_could_not_be_written_waits(self, hasty_world: World) -> None:
        world = hasty_world

        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            app.info("patient")

        runtime = await world.work()
        job_id = await world.put("k")
        await world.when(job_id, "done")
        with world.locked(), pytest.raises(Busy):
            await loop.tick(runtime.env)
        assert [one.message for one in await log_of(world, job_id, runtime)] == ["patient"]
        assert runtime.env.job_logs._runs == {}

    async def test_code_that_outlives_its_run_is_not_kept(self, world: World) -> None:
        late: list[asyncio.Task[None]] = []
        over = asyncio.Event()

        async def afterwards() -> None:
            await over.wait()
            app.info("too late")

        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            app.info("in time")
            late.append(asyncio.get_running_loop().create_task(afterwards()))

        runtime = await world.work()
        job_id = await world.put("k")
        await world.when(job_id, "done")
        await until(lambda: not len(runtime.env.running))
        over.set()
        await late[0]
        assert [one.message for one in await log_of(world, job_id, runtime)] == ["in time"]

    async def test_a_handler_that_does_not_log_leaves_nothing_behind(self, world: World) -> None:
        runs: list[Any] = []

        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            runs.append(ctx._run)

        await run(world, "k")
        assert runs[0].log_lines is None


class TestFields:
    async def test_every_line_carries_the_job(self, world: World) -> None:
        own = Kept()
        logging.getLogger().addHandler(own)

        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            app.info("with %s", "fields", extra={"attempt": "mine"})
            ctx.log.info("ours")

        try:
            await run(world, "k")
        finally:
            logging.getLogger().removeHandler(own)
        (record,) = [one for one in own.records if one.name == "app.orders"]
        assert (record.kind, record.queue, record.fence, record.attempt) == ("k", "default", 1, "mine")
        assert len(record.job_id) == 26

    async def test_a_line_names_the_place_that_logged_it(self, world: World) -> None:
        own = Kept()
        logger = logging.getLogger("forge_jobs.job")
        logger.addHandler(own)
        logger.setLevel(logging.INFO)

        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            ctx.log.info("here")

        try:
            await run(world, "k")
        finally:
            logger.removeHandler(own)
            logger.setLevel(logging.NOTSET)
        assert [(one.filename, one.funcName) for one in own.records] == [("test_job_log.py", "k")]

    async def test_lines_outside_of_jobs_are_left_alone(self, world: World) -> None:
        own = Kept()
        logging.getLogger().addHandler(own)
        try:
            await world.work()
            app.info("outside")
        finally:
            logging.getLogger().removeHandler(own)
        (record,) = [one for one in own.records if one.name == "app.orders"]
        assert not hasattr(record, "job_id")


class TestPlace:
    async def test_logging_that_is_configured_anew_does_not_end_it(self, world: World) -> None:
        @world.handlers.handler("k")
        async def k(ctx: JobCtx) -> None:
            app.info("still here")

        runtime = await world.work()
        root = logging.getLogger()
        before, root.handlers[:] = list(root.handlers), []
        await loop.tick(runtime.env)
        job_id = await world.put("k")
        await world.when(job_id, "done")
        found = await log_of(world, job_id, runtime)
        root.handlers[:] = before
        assert [one.message for one in found] == ["still here"]

    async def test_a_stopped_runtime_takes_its_handler_away(self, world: World) -> None:
        first, second = await world.work(), await world.work()
        root = logging.getLogger()
        assert root.handlers[0] is job_log._CAPTURE
        await first.stop()
        assert root.handlers[0] is job_log._CAPTURE
        await second.stop()
        assert job_log._CAPTURE not in root.handlers

    async def test_warnings_reach_stderr_though_nobody_configured_logging(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown = io.StringIO()
        monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(shown))
        logging.lastResort.setLevel(logging.WARNING)  # type: ignore[union-attr]
        await world.work()
        root = logging.getLogger()
        before, root.handlers[:] = list(root.handlers), [job_log._CAPTURE]
        app.warning("look here")
        app.info("not here")
        root.handlers[:] = before
        assert shown.getvalue() == "look here\n"


class TestRing:
    def test_a_process_holds_a_bounded_number_of_bytes(self) -> None:
        lines = Lines()
        assert lines.add(1, "INFO", "l", "x" * 100, room=100) == 0
        assert lines.add(1, "INFO", "l", "y" * 100, room=0) == 1
        assert [(one.message[0], one.number, one.skipped) for one in lines.take()] == [("y", 2, 1)]
        assert lines.add(1, "INFO", "l", "z" * 100, room=0) == 1
        assert lines.take() == []

    def test_lines_that_come_back_stand_before_newer_ones(self) -> None:
        lines = Lines()
        for number in range(3):
            lines.add(1, "INFO", "l", str(number), room=1_000)
        taken = lines.take()
        for number in range(3, limits.LOG_LINES + 2):
            lines.add(1, "INFO", "l", str(number), room=10_000)
        lines.put_back(taken)
        found = lines.take()
        assert [one.message for one in found] == [str(n) for n in range(2, limits.LOG_LINES + 2)]
        assert found[0].skipped == 2


async def test_follow_ups_are_enqueued_while_lines_are_kept(world: World) -> None:
    @world.handlers.handler("parent")
    async def parent(ctx: JobCtx) -> None:
        ctx.log.info("before")
        await ctx.enqueue(EnqueueRequest("child", queue="other"))
        ctx.log.info("after")

    assert [one.message for one in await run(world, "parent")] == ["before", "after"]
