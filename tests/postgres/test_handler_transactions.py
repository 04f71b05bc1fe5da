"""What a handler writes in `ctx.transaction()` commits with its follow-ups and its job's end, on both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime, RuntimeConfig, Storage, open_storage
from forge_jobs.storage.error import InvalidInput, LostOwnership
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.job import JobDetail
from forge_jobs.testing.cluster import until

QUICK = RuntimeConfig(heartbeat_s=1.0, stale_s=5.0, reaper_s=0.5, supervisor_s=0.05, poll_ms=20, shutdown_grace_s=0.3)


@dataclass
class World:
    """A store with a table of the user's in it, and a worker."""

    storage: Storage
    handlers: HandlerRegistry
    mark: str
    """How the driver writes a parameter."""

    async def run(self, kind: str) -> JobDetail:
        """Enqueue one job of the kind and run it to its end."""
        job_id = (await self.storage.jobs.enqueue(EnqueueRequest(kind, queue="default", max_attempts=1))).id
        runtime = QueueRuntime(self.storage, self.handlers, queues=["default"], slots=1, config=QUICK)
        await runtime.start()

        async def ended() -> JobDetail | None:
            detail = await self.storage.jobs.get(job_id)
            return detail if detail is not None and detail.row.status in ("done", "dead", "failed") else None

        try:
            return await until(ended, within_s=15)
        finally:
            await runtime.stop()

    async def notes(self) -> list[str]:
        """What is in the user's table."""
        looker = await self.storage.jobs.begin(QUICK.stale_after)
        try:
            return [row[0] for row in await looker.execute("SELECT note FROM notes ORDER BY note")]
        finally:
            await looker.close()

    async def waiting(self) -> list[str]:
        return sorted((await self.storage.jobs.waiting_kinds()).get("later", {}))


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("pg15").new_store()
    async with open_storage(url) as storage:
        maker = await storage.jobs.begin(QUICK.stale_after)
        await maker.execute("CREATE TABLE notes (note text)")
        maker.connection.commit()
        await maker.close()
        yield World(storage, HandlerRegistry(), "?" if request.param == "sqlite" else "%s")


async def test_rows_follow_ups_and_the_end_of_the_job_commit_together(world: World) -> None:
    seen: list[str] = []

    @world.handlers.handler("pay")
    async def pay(ctx: JobCtx) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(f"INSERT INTO notes VALUES ({world.mark})", ("paid",))
            await tx.enqueue(EnqueueRequest("mail", queue="later"))
            await ctx.enqueue(EnqueueRequest("ledger", queue="later"))
            detail = await world.storage.jobs.get(ctx.job_id)
            assert detail is not None
            seen.extend([detail.row.status, *await world.waiting()])
        detail = await world.storage.jobs.get(ctx.job_id)
        assert detail is not None
        seen.append(detail.row.status)

    detail = await world.run("pay")
    assert seen == ["in_progress", "done"]  # nothing before the commit, all of it after
    assert (detail.row.status, await world.notes(), await world.waiting()) == ("done", ["paid"], ["ledger", "mail"])


async def test_an_exception_rolls_all_of_it_back(world: World) -> None:
    @world.handlers.handler("pay")
    async def pay(ctx: JobCtx) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(f"INSERT INTO notes VALUES ({world.mark})", ("paid",))
            await tx.enqueue(EnqueueRequest("mail", queue="later", dedupe_key="mail"))
            raise RuntimeError("the card was refused")

    detail = await world.run("pay")
    assert (detail.row.status, detail.row.last_error) == ("dead", "the card was refused")
    assert (await world.notes(), await world.waiting()) == ([], [])


async def test_a_late_owner_commits_nothing_and_is_told(world: World) -> None:
    told: list[BaseException] = []

    @world.handlers.handler("pay")
    async def pay(ctx: JobCtx) -> None:
        try:
            async with ctx.transaction(finish=False) as tx:
                await tx.execute(f"INSERT INTO notes VALUES ({world.mark})", ("first",))
            await world.storage.jobs.finalize(ctx.job_id, ctx.fence, Done())  # as if another had settled it
            async with ctx.transaction() as tx:
                await tx.execute(f"INSERT INTO notes VALUES ({world.mark})", ("second",))
        except LostOwnership as error:
            told.append(error)

    await world.run("pay")
    assert await world.notes() == ["first"]
    assert len(told) == 1


async def test_a_failure_after_the_commit_does_not_undo_the_end(world: World) -> None:
    @world.handlers.handler("pay")
    async def pay(ctx: JobCtx) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(f"INSERT INTO notes VALUES ({world.mark})", ("paid",))
        raise RuntimeError("too late to matter")

    detail = await world.run("pay")
    assert (detail.row.status, await world.notes()) == ("done", ["paid"])


async def test_transactions_do_not_nest(world: World) -> None:
    refused: list[InvalidInput] = []

    @world.handlers.handler("pay")
    async def pay(ctx: JobCtx) -> None:
        async with ctx.transaction():
            try:
                async with ctx.transaction():
                    pass
            except InvalidInput as error:
                refused.append(error)

    assert (await world.run("pay")).row.status == "done"
    assert [error.reason for error in refused] == ["nested"]


async def test_a_transaction_that_takes_too_long_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_jobs.storage.postgres.storage.LONGEST_S", 1.0)

    @world.handlers.handler("pay")
    async def pay(ctx: JobCtx) -> None:
        async with ctx.transaction() as tx:
            await tx.execute(f"INSERT INTO notes VALUES ({world.mark})", ("paid",))
            await asyncio.sleep(60)

    detail = await world.run("pay")
    assert detail.row.status == "dead"
    assert await world.notes() == []
