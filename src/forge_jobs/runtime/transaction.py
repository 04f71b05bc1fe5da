"""`ctx.transaction()`: what a handler writes, its follow-ups and the end of its job, in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from forge_jobs.ids import new_id
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

if TYPE_CHECKING:
    from forge_jobs.runtime.running import Run
    from forge_jobs.storage.protocol import JobTransaction


class HandlerTransaction:
    """An open transaction of the store. Entered with `async with ctx.transaction() as tx`.

    At the end of the block, and nowhere before, everything is committed, if this run still owns its job; else all of
    it is rolled back and `LostOwnership` is raised. An exception rolls back and passes on.
    """

    def __init__(self, run: Run, *, finish: bool) -> None:
        self._run = run
        self._finish = finish
        self._store: JobTransaction | None = None
        self._stack = AsyncExitStack()

    @property
    def connection(self) -> Any:
        """The driver's own connection: an `sqlite3.Connection` or a synchronous `psycopg.Connection`. Its calls block;
        do not commit or roll back on it."""
        return self._open.connection

    async def execute(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement of yours, in the driver's own style of parameters; its rows, if it gives any."""
        return await self._open.execute(sql, params)

    async def enqueue(self, request: EnqueueRequest) -> EnqueueOutcome:
        """Add a follow-up with the commit; see `JobCtx.enqueue`. Not retried: the transaction is yours."""
        return (await self.enqueue_bulk([request]))[0]

    async def enqueue_bulk(self, requests: Sequence[EnqueueRequest]) -> list[EnqueueOutcome]:
        """Add follow-ups with the commit; outcomes in request order."""
        filled = [self._run.fill(request) for request in requests]
        named = [request if request.id is not None else replace(request, id=new_id()) for request in filled]
        return await self._open.enqueue_bulk(named, parent_id=self._run.job.id)

    async def __aenter__(self) -> Self:
        if self._run.transaction is not None:
            raise InvalidInput("a transaction of this run is open already; they do not nest", reason="nested")
        if self._run.committed:
            raise InvalidInput("this run's job was finished by its last transaction", reason="finished")
        limit = timedelta(seconds=self._run.env.config.heartbeat_s)
        store = await self._run.env.storage.jobs.begin(limit)
        try:
            self._stack.push_async_callback(store.close)
            await self._stack.enter_async_context(asyncio.timeout(store.limit_s))
        except BaseException:
            await store.close()
            raise
        self._store = store
        self._run.transaction = self
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._run.transaction = None
        if error is not None:
            return await self._stack.__aexit__(kind, error, trace)
        self._run.committing = self._finish
        try:
            async with self._stack:
                await self._open.commit(self._run.job.id, self._run.job.fence, finish=self._finish)
                self._run.committed = self._run.committed or self._finish
        finally:
            self._run.committing = False
        return None

    @property
    def _open(self) -> JobTransaction:
        if self._store is None:
            raise InvalidInput("the transaction is not open; use `async with ctx.transaction() as tx`")
        return self._store
