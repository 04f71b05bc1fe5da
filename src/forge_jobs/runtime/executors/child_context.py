"""`ctx` in a child process: the facts of the job are here, everything else is done by the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from forge_jobs.runtime.cancel import CancelToken
from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.executors.child_link import Link
from forge_jobs.runtime.executors.follow_ups import pack_requests, unpack_outcome
from forge_jobs.runtime.executors.frames import Progress, RunJob
from forge_jobs.runtime.executors.run_sync import check_coroutine
from forge_jobs.runtime.lifespan import State
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest, JobRecord
from forge_jobs.storage.types.rate_limit import Acquired, Granted, Refused

if TYPE_CHECKING:
    from forge_jobs.runtime.rate_limit import RateLimiter
    from forge_jobs.runtime.routing import Router
    from forge_jobs.runtime.running import Run
    from forge_jobs.runtime.transaction import HandlerTransaction
    from forge_jobs.storage.protocol import Storage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChildRun:
    """What a context reads of its run, in a child."""

    job: JobRecord
    cancel: CancelToken
    timeout_s: float | None
    link: Link

    def report_progress(self, current: float, total: float | None, message: str | None) -> None:
        self.link.send(Progress(current, total, message))


class ChildCtx(JobCtx):
    """The same names as in the worker. What needs the store's connection is refused."""

    __slots__ = ("_asked", "_link", "_runner", "_state")

    def __init__(self, link: Link, asked: RunJob, cancel: CancelToken, runner: asyncio.Runner, state: State) -> None:
        super().__init__(cast("Run", ChildRun(asked.job, cancel, asked.timeout_s, link)))
        self._link = link
        self._asked = asked
        self._runner = runner
        self._state = state

    @property
    def state(self) -> State:
        return self._state

    @property
    def storage(self) -> Storage:
        _refuse("ctx.storage")

    @property
    def router(self) -> Router:
        _refuse("ctx.router")

    @property
    def rate_limit(self) -> RateLimiter:
        return ChildRateLimiter(self._link)

    @property
    def process_id(self) -> str:
        return self._asked.process_id

    @property
    def host_id(self) -> str:
        return self._asked.host_id

    async def enqueue(self, request: EnqueueRequest) -> EnqueueOutcome:
        arguments = pack_requests([request], bulk=False)
        return unpack_outcome(await self._link.call("enqueue", *arguments))

    async def enqueue_bulk(self, requests: Sequence[EnqueueRequest]) -> list[EnqueueOutcome]:
        arguments = pack_requests(requests, bulk=True)
        return [unpack_outcome(one) for one in await self._link.call("enqueue_bulk", *arguments)]

    def transaction(self, *, finish: bool = True) -> HandlerTransaction:
        _refuse("ctx.transaction()")

    def run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        check_coroutine(work)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            work.close()
            raise InvalidInput("run_sync blocks, and this is an event loop; await the coroutine", reason="on_the_loop")
        if self._runner_is_of_this_thread():
            return self._runner.run(work)
        return asyncio.run(work)

    def _runner_is_of_this_thread(self) -> bool:
        import threading

        return threading.current_thread() is threading.main_thread()


class ChildRateLimiter:
    """Implements `RateLimiter` through the worker."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def acquire(self, scope: str, cost: float = 1, *, wait: bool | float | timedelta = False) -> Acquired:
        seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
        word, first, at = await self._link.call("acquire", scope, cost, seconds)
        if word == "granted":
            return Granted(remaining=first, at=datetime.fromisoformat(at))
        return Refused(retry_after=timedelta(seconds=first))

    async def drain(self, scope: str, retry_after: float | timedelta | None = None) -> bool:
        seconds = retry_after.total_seconds() if isinstance(retry_after, timedelta) else retry_after
        drained: bool = await self._link.call("drain", scope, seconds)
        return drained


def _refuse(what: str) -> NoReturn:
    raise InvalidInput(
        f"{what} is not there in a handler with executor='process', which has no connection to the store; use "
        "ctx.enqueue, or run this handler in the worker itself (an `async def`, or a plain function on a thread)",
        reason="no_store",
    )
