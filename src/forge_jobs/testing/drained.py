"""Running jobs here and now: the whole of a worker without its background loops, until nothing is left to do.

    ran = await drain(storage, handlers)
    assert ran.counts == {"done": 3, "failed": 1}

Jobs are claimed and settled as everywhere, one of each queue at a time, in the order of claims. No schedule ticks and
no job is revived meanwhile, so that a test is the same each time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.queue_runtime import QueueRuntime
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import Outstanding
from forge_jobs.storage.types.finalize import Applied, Finalize, FinalizeOutcome, Settled
from forge_jobs.storage.types.job import DeadReason, JobStatus

if TYPE_CHECKING:
    from forge_jobs.sync.sync_queue import SyncQueue

LOOK_S: Final = 0.002
FIRST_STEP: Final = timedelta(seconds=1)
LONGEST_STEP: Final = timedelta(days=7)
"""Time is moved in growing steps for jobs that wait for a budget; one that does not come in this never comes."""
LEAST_STEP: Final = timedelta(milliseconds=1)

Until = Literal["empty", "idle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run: what became of it, and the job's status since."""

    job_id: JobId
    kind: str
    queue: str
    attempt: int
    outcome: FinalizeOutcome
    status: JobStatus
    dead_reason: DeadReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What a drain did. `ran` is in the order in which runs were recorded.

    ready: jobs that could not be started, as they wait for a rate limit. waiting: jobs and retries of a later time.
    """

    ran: tuple[Ran, ...]
    ready: int
    waiting: int

    @property
    def counts(self) -> dict[str, int]:
        """Runs by the status that their job went to: `done`, `dead`, `failed` (it is retried later), `pending` (it was
        throttled or given back). What did not happen is not in it."""
        return dict(Counter(run.status.value for run in self.ran))

    @property
    def outcomes(self) -> list[FinalizeOutcome]:
        """What was recorded of each run."""
        return [run.outcome for run in self.ran]

    def __len__(self) -> int:
        return len(self.ran)


async def drain(
    storage: Storage,
    handlers: HandlerRegistry,
    *,
    queues: Sequence[str] | None = None,
    until: Until = "empty",
    advance: bool = False,
    max_jobs: int = 1_000,
    router: Router | None = None,
) -> Drained:
    """Run jobs in this process, follow-ups too; what was run and what is left.

    queues: those to serve; every queue of the store if not given. until: `idle` runs what is ready; `empty` also waits
    for what is due later. Under a `ManualClock` time stands still, so that nothing comes due and both end at the same
    moment, unless `advance` moves the clock: to the next due time again and again, or with `idle` once, if nothing
    is ready. max_jobs: most runs, or one more, in case a handler enqueues itself for ever.

    Raises:
        AssertionError: after `max_jobs` runs more jobs are ready.
        ConfigError: `advance` without a `ManualClock`, or `until` is neither word.
    """
    if until not in ("empty", "idle"):
        raise ConfigError(f"until {until!r} must be 'empty' or 'idle'")
    if advance and not isinstance(storage.clock, ManualClock):
        raise ConfigError("advance moves a ManualClock; open the store with open_storage(url, clock=ManualClock())")
    drain = _Drain(storage, handlers, queues, max_jobs, router)
    left = await drain.run(wait=until == "empty" and not isinstance(storage.clock, ManualClock))
    if advance and until == "idle" and not drain.ran and left.waiting:
        if await drain.move_to_next_due():
            left = await drain.run()
    elif advance and until == "empty":
        left = await drain.run_and_move(left)
    return Drained(ran=tuple(drain.ran), ready=left.ready, waiting=left.waiting)


def drain_sync(
    queue: SyncQueue,
    handlers: HandlerRegistry,
    *,
    queues: Sequence[str] | None = None,
    until: Until = "idle",
    max_jobs: int = 1_000,
    router: Router | None = None,
) -> Drained:
    """`drain` for tests without an event loop: run the jobs of a `SyncQueue`'s store on the thread of the store.

    It gets as long as a call on the queue may take, 15 s unless its config says otherwise, so by default it does not
    wait for what is due later.

    Raises:
        AssertionError, ConfigError: as `drain` does.
        OutcomeUnknown: it took too long; it goes on.
    """

    def work(storage: Storage) -> Coroutine[Any, Any, Drained]:
        return drain(storage, handlers, queues=queues, until=until, max_jobs=max_jobs, router=router)

    return queue._store.call(work, ids=())


class _Drain:
    """Rounds of a runtime that starts, does what there is to do, and stops."""

    def __init__(
        self,
        storage: Storage,
        handlers: HandlerRegistry,
        queues: Sequence[str] | None,
        max_jobs: int,
        router: Router | None,
    ) -> None:
        self.ran: list[Ran] = []
        self._storage = storage
        self._handlers = handlers
        self._asked = queues
        self._max_jobs = max_jobs
        self._router = router
        self._runtime: QueueRuntime | None = None

    async def run(self, *, wait: bool = False) -> Outstanding:
        """Run until nothing is ready, with `wait` until nothing is due later either; what is left."""
        queues = await self._queues()
        while True:
            left = await self._round(queues, wait=wait)
            served, queues = queues, await self._queues()
            if set(queues) <= set(served):  # else a follow-up made a queue
                return left

    async def run_and_move(self, left: Outstanding) -> Outstanding:
        """Move the clock to what is due next and run it, until nothing waits; what is left, which never comes due."""
        step = FIRST_STEP
        while (left.ready or left.waiting) and step <= LONGEST_STEP:
            if left.ready:  # a rate limit has no tokens, and says only when it is asked
                self._clock.advance(step)
            elif not await self.move_to_next_due():
                break
            before = len(self.ran)
            left = await self.run()
            step = FIRST_STEP if len(self.ran) > before or not left.ready else 2 * step
        return left

    async def move_to_next_due(self) -> bool:
        """Move the clock to the next due time; False if there is none."""
        due = await self._storage.jobs.next_due(await self._queues())
        if due is None:
            return False
        self._clock.advance(max(due - self._clock.now(), LEAST_STEP))
        return True

    @property
    def _clock(self) -> ManualClock:
        assert isinstance(self._storage.clock, ManualClock)
        return self._storage.clock

    async def _queues(self) -> list[str]:
        if self._asked is not None:
            return list(self._asked)
        return [queue.name for queue in await self._storage.queues.list()] or ["default"]

    async def _round(self, queues: Sequence[str], *, wait: bool) -> Outstanding:
        runtime = self._runtime = QueueRuntime(
            self._storage, self._handlers, queues, slots=1, router=self._router, name="drain"
        )
        runtime.loops, runtime.on_settled = (), self._note
        await runtime.start()
        try:
            await self._until_quiet(runtime, wait=wait)
        finally:
            await runtime.stop()
        left = await self._storage.jobs.outstanding(queues, self._handlers.kinds())
        if runtime.env.health.fatal is not None:
            raise runtime.env.health.fatal
        if len(self.ran) >= self._max_jobs and left.ready:
            raise AssertionError(
                f"max_jobs={self._max_jobs} were run and {left.ready} more are ready; if no handler enqueues itself "
                f"for ever, allow more. The last was of kind {self.ran[-1].kind!r}"
            )
        return left

    async def _until_quiet(self, runtime: QueueRuntime, *, wait: bool) -> None:
        """Until the runtime is asked to stop, or has nothing to do that it can do."""
        env = runtime.env
        by_hand = isinstance(self._storage.clock, ManualClock)
        while not env.stopping.is_set():
            if _is_quiet(runtime):
                left = await self._storage.jobs.outstanding(runtime.queues, env.handlers.kinds())
                # While time stands, what runs elsewhere does not end and what waits for a budget does not get it.
                held = (not by_hand and (left.ready or left.running)) or (wait and left.waiting)
                if _is_quiet(runtime) and not held:
                    return
            await asyncio.sleep(LOOK_S)

    def _note(self, item: Finalize, settled: Settled) -> None:
        if isinstance(settled, Applied) and item.job is not None:
            self.ran.append(
                Ran(
                    job_id=item.job_id,
                    kind=item.job.kind,
                    queue=item.job.queue,
                    attempt=item.job.attempts,
                    outcome=item.outcome,
                    status=settled.status,
                    dead_reason=settled.dead_reason,
                )
            )
            if len(self.ran) >= self._max_jobs and self._runtime is not None:
                self._runtime.request_stop()


def _is_quiet(runtime: QueueRuntime) -> bool:
    """Whether no job runs, nothing is on its way to or from the store, and no line wants to claim."""
    env, now = runtime.env, asyncio.get_running_loop().time()
    return not (
        len(env.running) or env.exchanger.unsettled or any(line.wants(now) for line in env.exchanger.lines.values())
    )
