"""A worker process: supervisors, slots, the exchange with the store, heartbeats and background loops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from forge_jobs import limits
from forge_jobs.config import RuntimeConfig
from forge_jobs.ids import parse_id
from forge_jobs.names import check_name
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.deadlines import Deadlines
from forge_jobs.runtime.deaths import Deaths
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.exchange import Exchanger, Line
from forge_jobs.runtime.executors.placement import Placement, check_executors
from forge_jobs.runtime.executors.process import Processes
from forge_jobs.runtime.executors.thread import Threads
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.job_log import JobLogs, install, uninstall
from forge_jobs.runtime.lifespan import Life
from forge_jobs.runtime.loops import (
    cleanup,
    cron,
    fence,
    gauges,
    job_log,
    lag,
    metrics,
    progress,
    reaper,
    rebalance,
    retirement,
    unserved,
)
from forge_jobs.runtime.loops.heartbeat import Heartbeat
from forge_jobs.runtime.loops.loop import Loop, run_loop
from forge_jobs.runtime.readiness import readiness
from forge_jobs.runtime.routing import DefaultRouter, Router
from forge_jobs.runtime.running import RunningTable, RunState
from forge_jobs.runtime.schedules import trigger
from forge_jobs.runtime.supervisor import Supervisor
from forge_jobs.storage.error import ConfigError, StorageError
from forge_jobs.storage.protocol import CLUSTER, Storage
from forge_jobs.storage.types.finalize import Finalize, Released, Settled
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

log = logging.getLogger("forge_jobs.runtime")

LOOPS: Final[tuple[Loop, ...]] = (
    fence.LOOP, reaper.LOOP, rebalance.LOOP, cron.LOOP, cleanup.LOOP, progress.LOOP, lag.LOOP, unserved.LOOP,
    metrics.LOOP, gauges.LOOP, job_log.LOOP, retirement.LOOP,
)  # fmt: skip
END_GRACE_S: Final = 2.0
"""How long handlers get to end after their tasks were cancelled."""
SETTLE_GRACE_S: Final = 2.0
"""How long the shutdown tries to record what ended."""
RESIDENTS_GRACE_S: Final = 5.0
"""How long handlers get to end what they kept for the runtime, once no job runs."""
DRAIN_LOOK_S: Final = 0.05
DRAIN_LOOK_MAX_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Report:
    """What a process did: jobs finished, given back unfinished, and abandoned in a handler that would not end. Of the
    abandoned ones `abandoned_returned` were given back; the others timed out, were cancelled, or were over."""

    finished: int
    released: int
    abandoned: int
    abandoned_returned: int


class QueueRuntime:
    """Runs the jobs of some queues.

        runtime = QueueRuntime(storage, handlers, queues=["default"], slots=10)
        await runtime.run()            # until request_stop(), or: await runtime.start(); …; await runtime.stop()

    `slots` is the most jobs of one queue at a time in this process (10); all queues together at most 2 000. `name`
    labels the process for people. `registry` is the path of `handlers`, as in "app:handlers": child processes import
    it, so handlers with `executor="process"` need it. `executors` says where the handlers of a queue run that do not
    say so themselves, as in `{"reports": "process"}`; a queue that is not named leaves it to the function. One runtime
    per event loop is usual, several are fine.

    Raises:
        ConfigError: no queue, too many slots, or `executors` names no executor or a queue that is not served.
        InvalidName: a queue's name is not legal.
    """

    def __init__(
        self,
        storage: Storage,
        handlers: HandlerRegistry,
        queues: Iterable[str] = ("default",),
        slots: int | None = None,
        router: Router | None = None,
        name: str | None = None,
        config: RuntimeConfig | None = None,
        registry: str | None = None,
        executors: Mapping[str, str] | None = None,
    ) -> None:
        self.queues = _queue_names(queues)
        self._executors = check_executors(executors or {}, self.queues)
        config = config or RuntimeConfig()
        _check_slots(slots if slots is not None else config.slots, len(self.queues))
        self._slots = slots
        self._registry = registry
        self._settings = (storage, handlers, router or DefaultRouter(), config, _label(name))
        self.loops: Sequence[Loop] = LOOPS
        self.on_settled: Callable[[Finalize, Settled], None] | None = None
        """These two are for tests, and set before `start`: the loops to run, and who is told of written outcomes."""
        self._env: RuntimeEnv | None = None
        self._supervisors: list[Supervisor] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._exchange_task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._hurry = asyncio.Event()
        self._life: Life | None = None
        self._started = False
        self._captures = False

    @property
    def env(self) -> RuntimeEnv:
        """The running process.

        Raises:
            ConfigError: it was not started.
        """
        if self._env is None:
            raise ConfigError("this QueueRuntime is not running; call start() first")
        return self._env

    @property
    def host_id(self) -> str:
        return self.env.host_id

    @property
    def report(self) -> Report:
        counts = self.env.health.counts
        return Report(counts["finished"], counts["released"], counts["abandoned"], counts["abandoned_returned"])

    async def start(self) -> None:
        """Begin to work; returns when the process is registered and its slots are open. A stopped runtime may be
        started again, as a new process with a new `host_id`.

        Raises:
            ConfigError: it is running, a handler takes a resource that no lifespan provides, cannot run where its queue
                says, or is not found by child processes.
            LifespanError: a resource could not be made.
        """
        if self._started:
            raise ConfigError("this QueueRuntime is running already")
        self._started = True
        try:
            await self._begin()
        except BaseException:
            await self._undo_start()
            raise
        env = self.env
        env.observer.happened("worker_started", host_id=env.host_id, worker=env.label, queues=self.queues)
        log.info("worker_started host_id=%s worker=%s queues=%s", env.host_id, env.label, ",".join(self.queues))

    async def _begin(self) -> None:
        storage, handlers, router, config, label = self._settings
        handlers.check_resources()
        placement = Placement(handlers, self._executors, self.queues)
        placement.check()
        env = self._env = RuntimeEnv(storage, handlers, router, config, label)
        env.on_settled = self.on_settled
        env.running, env.deadlines, env.exchanger = RunningTable(), Deadlines(), Exchanger(env)
        env.job_logs = JobLogs(env)
        env.heartbeat, env.deaths = Heartbeat(env, self.queues), Deaths(env)
        env.placement = placement
        env.threads, env.processes = Threads(env), Processes(env, self._registry)
        self._hurry.clear()
        self._supervisors = []
        await env.processes.start()
        for limit in handlers.limits():
            await storage.rate_limits.ensure(limit)
        for queue in self.queues:
            await storage.queues.ensure(queue)
            line = env.exchanger.lines[queue] = Line(env, queue)
            self._supervisors.append(Supervisor(env, line, self._slots, self._offered))
        for declaration in handlers.schedules():
            await storage.schedules.ensure(declaration)
        install()
        self._captures = True
        self._life = Life(handlers.lifespans)
        env.state = await self._life.enter(env.stopping)
        for resident in handlers.residents():
            await resident.runtime_started(env)
        await env.heartbeat.start()
        self._unsubscribe = storage.subscribe(env.host_id, env.exchanger.wake)
        await asyncio.gather(*(supervisor.tick() for supervisor in self._supervisors))
        for supervisor in self._supervisors:
            self._spawn(supervisor.run(), f"supervisor-{supervisor.line.queue}")
        self._exchange_task = self._spawn(env.exchanger.run(), "exchange")
        env.deaths.start()
        for loop in self.loops:
            self._spawn(run_loop(env, loop), loop.name)
        await env.heartbeat.beat_now()  # so that the list of processes shows the slots that are open now
        storage.wake([CLUSTER])

    async def _undo_start(self) -> None:
        """Leave nothing of a start that failed, so that it can be tried again."""
        env, self._started = self._env, False
        self._stop_capture()
        self._unsubscribe()
        for supervisor in self._supervisors:
            supervisor.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if env is not None:
            await env.deaths.stop()
            await env.heartbeat.stop(0)
            env.deadlines.close()
            env.threads.close()
            await self._children_gone(asyncio.create_task(self._end_residents()))
        await self._end_life()
        self._env = None

    async def run(self) -> None:
        """Start, work until `request_stop` is called or the store becomes unusable, then stop.

        Raises:
            StoreUnavailable: the store must not be used any longer.
            LifespanError: a resource could not be made or closed.
        """
        if not self._started:
            await self.start()
        env = self.env
        await env.stopping.wait()
        await self.stop()
        if env.health.fatal is not None:
            raise env.health.fatal

    async def drain(self, all: bool = False) -> None:
        """Work until no job of these queues and kinds is ready or running anywhere, then stop.

        Jobs of the future and retries that wait do not hold it, unless `all` is given. Paused queues never do.
        """
        if not self._started:
            await self.start()
        env, look = self.env, DRAIN_LOOK_S
        while not env.stopping.is_set():
            if not len(env.running) and not env.exchanger.unsettled:
                left = await env.storage.jobs.outstanding(self.queues, env.handlers.kinds())
                if not (left.ready or left.running or (all and left.waiting)):
                    break
            try:
                await asyncio.wait_for(env.stopping.wait(), look)
            except TimeoutError:
                look = min(look * 1.2, DRAIN_LOOK_MAX_S)
        await self.stop()
        if env.health.fatal is not None:
            raise env.health.fatal

    def request_stop(self, *, hurry: bool = False) -> None:
        """Ask `run` or `drain` to stop; with `hurry` handlers are ended at once, without their grace."""
        if self._env is not None:
            self._env.stopping.set()
            if hurry:
                self._hurry.set()

    def readiness(self, loop_time: float) -> dict[str, Any]:
        """Whether this process makes progress, and what keeps it from that, by the clock of its event loop.

        Reads plain numbers only, so it may be called from any thread, also while a handler blocks the event loop.
        """
        return readiness(self._env, loop_time)

    async def enqueue(self, request: EnqueueRequest) -> EnqueueOutcome:
        """Enqueue a job as a handler's follow-up would be: an absent queue and max_attempts are filled in."""
        return await self.env.storage.jobs.enqueue(self.env.fill(request))

    async def enqueue_bulk(self, requests: Sequence[EnqueueRequest]) -> list[EnqueueOutcome]:
        """The same for up to 10 000 jobs in one transaction."""
        return await self.env.storage.jobs.enqueue_bulk([self.env.fill(request) for request in requests])

    async def trigger(self, schedule: str, *, force: bool = False) -> EnqueueOutcome:
        """Enqueue one job of a schedule now; its ticks are not touched. `force` ignores its key.

        Raises:
            NotFound: there is no such schedule.
        """
        env = self.env
        return await trigger(
            env.storage,
            env.router,
            schedule,
            handlers=env.handlers,
            max_attempts=env.config.max_attempts,
            force=force,
        )

    async def request_cancel(self, job_id: str) -> bool:
        """Cancel a job that runs in this process; False if it does not."""
        run = self.env.running.of_job(parse_id(job_id))
        if run is None or run.state is not RunState.RUNNING:
            return False
        await self.env.storage.jobs.cancel(run.job.id)
        run.cancel_by_user()
        return True

    async def stop(self, grace: float | timedelta | None = None) -> Report:
        """Stop: no more claims, every handler told at once, `grace` seconds to end by themselves, then they are ended;
        what ended is recorded, what did not is given back with its attempt restored. Takes at most grace + 5 s,
        and up to 14 s more while child processes, hooks or resources are slow to end."""
        env = self.env
        if not self._started:
            return self.report
        self._started = False
        seconds = grace.total_seconds() if isinstance(grace, timedelta) else grace
        env.stopping.set()
        env.observer.happened("shutdown_begun", running=len(env.running))
        log.info("shutdown_begun running=%d", len(env.running))
        env.heartbeat.mark_draining()
        for supervisor in self._supervisors:
            supervisor.close()
        env.running.interrupt(CancelReason.SHUTDOWN)
        residents = asyncio.create_task(self._end_residents(), name="forge-residents")
        await self._until_idle(env.config.shutdown_grace_s if seconds is None else seconds, unless=self._hurry)
        for run in env.running:
            run.end(CancelReason.SHUTDOWN)
        await self._until_idle(END_GRACE_S)
        await self._end_tasks()
        await self._settle_rest()
        await self._children_gone(residents)
        await env.deaths.stop()
        await self._end_life()
        self._unsubscribe()
        self._stop_capture()
        env.deadlines.close()
        env.threads.close()
        report = self.report
        env.observer.happened(
            "shutdown_done", finished=report.finished, released=report.released, abandoned=report.abandoned
        )
        log.info(
            "shutdown_done finished=%d released=%d abandoned=%d", report.finished, report.released, report.abandoned
        )
        return report

    # How stopping is done

    async def _end_residents(self) -> None:
        """Let handlers end what they kept. A fault of one is logged and keeps no other from it."""
        residents = self.env.handlers.residents()
        ended = await asyncio.gather(*(one.runtime_stopping(self.env) for one in residents), return_exceptions=True)
        for fault in ended:
            if isinstance(fault, Exception):
                log.error("resident_fault", exc_info=fault)

    async def _children_gone(self, residents: asyncio.Task[None]) -> None:
        """Wait for the residents' end, and end whatever child there still is."""
        await asyncio.wait([residents], timeout=0 if self._hurry.is_set() else RESIDENTS_GRACE_S)
        residents.cancel()
        self.env.processes.close()
        await self.env.children.close()

    async def _until_idle(self, seconds: float, unless: asyncio.Event | None = None) -> None:
        """Wait until no handler runs, at most `seconds`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self.env.running.handlers_running and loop.time() < until and not (unless and unless.is_set()):
            await asyncio.sleep(min(0.02, max(until - loop.time(), 0)))

    async def _end_tasks(self) -> None:
        """End the supervisors, the loops, and the exchange once its request under way is answered."""
        exchange = self._exchange_task
        for task in self._tasks:
            if task is not exchange:
                task.cancel()
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_GRACE_S
        while self.env.exchanger.unsettled and loop.time() < until:
            await asyncio.sleep(0.005)
        if exchange is not None:
            exchange.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("task_fault", exc_info=result)
        self._tasks.clear()

    async def _settle_rest(self) -> None:
        """Record what ended, take the process off the list, and as the last write give back what still runs."""
        env = self.env
        try:
            async with asyncio.timeout(SETTLE_GRACE_S):
                await env.exchanger.flush()
                await env.storage.events.flush()
                await env.heartbeat.stop(SETTLE_GRACE_S / 2)  # a later beat would put the process back on the list
                await env.storage.processes.remove(env.host_id)
                env.storage.wake([CLUSTER])
                left = [run for run in env.running if not run.lost and run.state is not RunState.ENDED]
                if left:
                    env.health.counts["abandoned"] += len(left)
                    returned = sum(run.concluded is None for run in left)
                    env.health.counts["released"] += returned
                    env.health.counts["abandoned_returned"] += returned
                    for run in left:
                        run.state = RunState.ABANDONED
                    await env.storage.jobs.settle_and_claim(
                        [Finalize(run.job.id, run.job.fence, run.concluded or Released()) for run in left]
                    )
                await self._flush_logs()
        except (StorageError, TimeoutError) as error:
            await env.heartbeat.stop(0)
            log.error("shutdown_unsettled jobs=%d error=%s; the reaper gives them back", len(env.running), error)

    async def _end_life(self) -> None:
        """Close the resources of the handlers. A fault comes after all is recorded, and ends the worker loudly."""
        life, self._life = self._life, None
        if life is None:
            return
        try:
            await life.leave()
        except Exception as error:
            log.error("lifespan_fault error=%s", error, exc_info=error)
            if self._env is not None and self._env.health.fatal is None:
                self._env.health.fatal = error

    async def _flush_logs(self) -> None:
        """The last lines, best effort."""
        try:
            await self.env.job_logs.flush()
        except StorageError as error:
            log.warning("job_log_lost error=%s", error)

    def _stop_capture(self) -> None:
        if self._captures:
            self._captures = False
            uninstall()

    @property
    def _offered(self) -> int:
        """The most slots of one queue that has a total."""
        if self._slots is not None:
            return self._slots
        return min(limits.SLOTS_PER_QUEUE_OF_A_TOTAL, max(limits.SLOTS_PER_PROCESS // len(self.queues), 1))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=f"forge-{name}")
        task.add_done_callback(self._watch)
        self._tasks.append(task)
        return task

    def _watch(self, task: asyncio.Task[None]) -> None:
        """A task of ours that ends by a fault ends the process, loudly: half a worker is worse than none."""
        if not task.cancelled() and task.exception() is not None:
            log.critical("runtime_fault task=%s", task.get_name(), exc_info=task.exception())
            self.env.health.fatal = task.exception()
            self.env.stopping.set()


def _queue_names(queues: Iterable[str]) -> tuple[str, ...]:
    if isinstance(queues, str):
        raise ConfigError(f"queues {queues!r} must be a list of names, e.g. [{queues!r}]")
    names = tuple(dict.fromkeys(check_name(name, "queue") for name in queues if name != ""))
    if not names:
        raise ConfigError("a worker needs at least one queue")
    return names


def _check_slots(slots: int, queues: int) -> None:
    if type(slots) is not int or slots < 1:
        raise ConfigError(f"slots {slots!r} must be a whole number, 1 or more")
    if slots * queues > limits.SLOTS_PER_PROCESS:
        raise ConfigError(
            f"{slots} slots for each of {queues} queues are more than {limits.SLOTS_PER_PROCESS} in one process"
        )


def _label(name: str | None) -> str | None:
    label = (name or "").strip()
    if len(label) > limits.NAME_LENGTH:
        raise ConfigError(f"worker name of {len(label)} characters is longer than {limits.NAME_LENGTH}")
    return label or None
