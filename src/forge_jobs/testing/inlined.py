"""Running every job right after its enqueue, for tests of code that expects its effects at once.

    async with inline(storage, handlers) as storage:
        await storage.jobs.enqueue(EnqueueRequest("mail", {"to": "a@example.org"}, queue="default"))
        # the mail is sent

The enqueue is the store's own: it is checked, deduplicated and committed as ever. Then the queue is drained, so the
job's outcome is recorded as ever too, and nothing that a handler raises reaches the caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from forge_jobs.ids import JobId
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.routing import DefaultRouter, Router, fill
from forge_jobs.storage.protocol import JobStore, Storage
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest
from forge_jobs.testing.drained import drain


@asynccontextmanager
async def inline(
    storage: Storage, handlers: HandlerRegistry, *, router: Router | None = None
) -> AsyncIterator[Storage]:
    """The store, with an enqueue that returns when what is ready has run, follow-ups too. Delayed jobs and retries
    wait, as they are not due. A queue or max_attempts that a request leaves out is filled in."""
    yield cast("Storage", _InlineStorage(storage, handlers, router or DefaultRouter()))


class _InlineStorage:
    """A store whose enqueues run their jobs; everything else is that of the store."""

    def __init__(self, storage: Storage, handlers: HandlerRegistry, router: Router) -> None:
        self._storage = storage
        self.jobs = cast("JobStore", _InlineJobs(storage, handlers, router))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class _InlineJobs:
    def __init__(self, storage: Storage, handlers: HandlerRegistry, router: Router) -> None:
        self._storage = storage
        self._handlers = handlers
        self._router = router

    async def enqueue(self, request: EnqueueRequest, *, parent_id: JobId | None = None) -> EnqueueOutcome:
        outcome = await self._storage.jobs.enqueue(self._filled(request), parent_id=parent_id)
        await self._run()
        return outcome

    async def enqueue_bulk(
        self, requests: Sequence[EnqueueRequest], *, parent_id: JobId | None = None
    ) -> list[EnqueueOutcome]:
        filled = [self._filled(request) for request in requests]
        outcomes = await self._storage.jobs.enqueue_bulk(filled, parent_id=parent_id)
        await self._run()
        return outcomes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage.jobs, name)

    def _filled(self, request: EnqueueRequest) -> EnqueueRequest:
        return fill(request, self._router, self._handlers)

    async def _run(self) -> None:
        await drain(self._storage, self._handlers, until="idle", router=self._router)
