"""What the integrations share: from a request to rows, by the same code that a store uses.

It is written for connections that are awaited. Where the library blocks instead, nothing is ever waited for, and the
coroutine is run `at_once`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast

from forge_jobs import limits, tracing
from forge_jobs.runtime.routing import DefaultRouter, Router, fill
from forge_jobs.storage.error import NoTransaction, SchemaMismatch
from forge_jobs.storage.request import check_requests
from forge_jobs.storage.sql.at_once import AwaitedTx
from forge_jobs.storage.sql.enqueue import KnownQueues, add_jobs
from forge_jobs.storage.types.job import Enqueued, EnqueueOutcome, EnqueueRequest

log = logging.getLogger("forge_jobs.integrations")

ROUTER: Final = DefaultRouter()
SCHEMA: Final = "forge"
SAVEPOINT: Final = ("SAVEPOINT forge_part", "RELEASE forge_part", ("ROLLBACK TO forge_part", "RELEASE forge_part"))
Wake: TypeAlias = Callable[[list[str]], object]
"""Told the queues of new jobs once they are committed, such as `storage.wake`."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every `enqueue` may be told."""

    router: Router
    autocommit_ok: bool
    schema: str = SCHEMA


class CallersTx(AwaitedTx, Protocol):
    """The connection of a caller, with whatever transaction is open on it."""

    advice: str
    """How to open a transaction."""

    @property
    def alone(self) -> bool:
        """Whether none is open, so that every statement would be one."""

    async def look(self) -> None:
        """See that our schema is there; the first use of the transaction."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """One for us alone, if none is open."""


@dataclass(frozen=True, slots=True)
class Added:
    """What was answered, and the queues that have new jobs."""

    outcomes: list[EnqueueOutcome]
    queues: list[str]


async def add(tx: CallersTx, requests: Sequence[EnqueueRequest], options: Options) -> Added:
    """Add the jobs in the caller's transaction; outcomes in request order, all or a refusal."""
    alone = tx.alone
    if alone and not options.autocommit_ok:
        raise NoTransaction(
            f"no transaction is open on this connection, so the job would not be part of one; {tx.advice}, "
            "or say autocommit_ok=True if it may stand alone"
        )
    async with tx.transaction() if alone else contextlib.nullcontext():
        await tx.look()
        filled = [fill(request, options.router) for request in requests]
        with tracing.enqueuing(filled) as traced:
            jobs = check_requests(traced, parent_id=None, payload_max=limits.PAYLOAD_MAX_BYTES)
            if not jobs:
                return Added([], [])
            batch = await add_jobs(tx, jobs, KnownQueues(), atomic=True)
    outcomes = cast("list[EnqueueOutcome]", batch.answers)  # a refusal was raised
    new = {job.queue for job, outcome in zip(jobs, outcomes, strict=True) if isinstance(outcome, Enqueued)}
    return Added(outcomes, sorted(new))


async def one(work: Coroutine[Any, Any, Added]) -> EnqueueOutcome:
    """The outcome of the only request."""
    return (await work).outcomes[0]


async def all_of(work: Coroutine[Any, Any, Added]) -> list[EnqueueOutcome]:
    """The outcomes of all requests."""
    return (await work).outcomes


async def settled(answer: Awaitable[T] | T) -> T:
    """What a library's call gives, now or when it is awaited."""
    return await answer if isinstance(answer, Awaitable) else answer


@contextlib.asynccontextmanager
async def bracket(
    run: Callable[[str], Awaitable[object]], begin: str, end: str, undo: Sequence[str]
) -> AsyncIterator[None]:
    """A part that is undone by an error. Another one while it is undone does not hide the first."""
    await run(begin)
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            for command in undo:
                await run(command)
        raise
    await run(end)


def tell(wake: Wake, queues: list[str]) -> None:
    """Wake workers after the commit, which an error here must not make look like a failure."""
    try:
        wake(queues)
    except Exception as error:
        log.warning("wake_fault: %s could not be told of new jobs, they are found by polling (%s)", queues, error)


def no_schema(where: str) -> SchemaMismatch:
    """The refusal of a database without our tables."""
    return SchemaMismatch(f"{where} holds no forge-jobs schema; `forge-jobs db create` adds it")
