"""The demo's story: start the processes, kill one worker and stop another in the middle, watch, collect the facts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from forge_jobs import EnqueueRequest, Storage, open_storage
from forge_jobs.demo import results
from forge_jobs.demo.corpus import Fate, SourceFile, choose, measure
from forge_jobs.demo.facts import ExpectedFile, Facts, Happenings, Run, collect
from forge_jobs.demo.fleet import DemoError, Fleet
from forge_jobs.demo.jobs import FILE, LIST, LOCAL_QUEUE, UPSTREAM_QUEUE
from forge_jobs.demo.plan import BACKOFF, STRANGER_AT, TIMINGS, Plan, timings_in_words
from forge_jobs.demo.stage import ENDED, Display, OutOfTime, Snapshot, Stage
from forge_jobs.demo.upstream import SLOW_S, STRANGER_S
from forge_jobs.storage.types.job import JobRow

WAITING: Final = (timedelta(seconds=0.25), timedelta(seconds=0.7))
"""A job of a slow file that has run for this long was not refused, and will not end before a signal or its grace."""
BUSY_JOBS: Final = 3
PATIENCE: Final = 0.1
"""A worker is hit when it runs so many jobs; after this share of the files more, when it runs any."""


async def conduct(
    plan: Plan, display: Display, folder: Path, *, then: Callable[[Facts, str | None], Awaitable[None]] | None = None
) -> Facts:
    """Run the demo in an empty folder.

    `then` is called with the facts and the dashboard's address, if there is one; fresh workers run until it is over.

    Raises:
        DemoError: a process did not start, or ended by itself.
    """
    started_at = datetime.now(UTC)
    corpus = choose(plan.items, plan.seed)
    with Fleet(folder, plan) as fleet:
        async with open_storage(fleet.database, config=fleet.store) as storage:
            stage = Stage(storage, fleet, display, files=len(corpus), time_limit_s=plan.time_limit_s)
            table = folder / "results.db"
            upstream = await _set_up(plan, corpus, fleet, storage, table, display)
            dashboard = await fleet.start_dashboard()
            display.say(
                "the dashboard needs its libraries: pip install 'forge-jobs[server]'"
                if dashboard is None
                else f"dashboard: {dashboard}"
            )
            # Counting what the jobs should find takes seconds; it goes on beside the story.
            expected = asyncio.get_running_loop().run_in_executor(None, _expect, corpus)
            bootstrap = {"upstream": upstream, "results": str(table)}
            request = EnqueueRequest(LIST, bootstrap, queue=UPSTREAM_QUEUE, priority=-10, dedupe_key="list")
            await storage.jobs.enqueue(request)
            display.say("enqueued one job: list the upstream")
            story = _Story(plan, corpus, fleet, stage, display)
            finished = await story.tell()
            facts = await collect(
                storage,
                files=await expected,
                log=fleet.upstream_log,
                table=table,
                happenings=Happenings(
                    orphans=story.orphans, interrupted=story.interrupted, exits=tuple(fleet.exits), begun=plan.workers
                ),
                finished=finished,
                started_at=started_at,
            )
            if then is not None:
                for worker in _names(plan):
                    fleet.start_worker(worker)
                await then(facts, dashboard)
            return facts


async def _set_up(
    plan: Plan, corpus: tuple[SourceFile, ...], fleet: Fleet, storage: Storage, table: Path, display: Display
) -> str:
    """Start the upstream and the workers; the upstream's address."""
    fates = Counter(file.fate for file in corpus)
    if len(fates) < len(Fate):
        raise DemoError(f"only {len(corpus)} source files in this Python's library: too few for a demo")
    display.say(f"timings scaled down: {timings_in_words()}")
    budget = plan.budget(len(corpus))
    stranger_after = max(1, round(STRANGER_AT * len(corpus)))
    url = await fleet.start_upstream(budget, stranger_after)
    display.say(
        f"upstream {url} serves {len(corpus)} files of the standard library: {fates[Fate.GONE]} gone (404), "
        f"{fates[Fate.FLAKY]} flaky (500 the first time), {fates[Fate.SLOW]} slow ({SLOW_S:g} s); "
        f"budget {budget} requests/s, above it 429 + Retry-After; after {stranger_after} answers another client has "
        f"all of it for {STRANGER_S:g} s"
    )
    limit = plan.rate_limit(budget)
    await storage.rate_limits.add(limit)
    display.say(
        f"set the rate limit {limit.scope} of all workers: {limit.refill_per_s:g} requests/s, "
        f"{limit.capacity:g} at once"
    )
    results.create(table)
    for queue in (UPSTREAM_QUEUE, LOCAL_QUEUE):
        await storage.queues.ensure(queue)
        await storage.queues.change(queue, BACKOFF)
    for worker in _names(plan):
        fleet.start_worker(worker)
        display.say(f"started {worker}: {plan.slots} slots for each of the queues {UPSTREAM_QUEUE} and {LOCAL_QUEUE}")
    return url


def _names(plan: Plan) -> list[str]:
    """The workers that begin."""
    return [f"worker-{number + 1}" for number in range(plan.workers)]


def _expect(corpus: Iterable[SourceFile]) -> tuple[ExpectedFile, ...]:
    return tuple(
        ExpectedFile(path=file.path, fate=file.fate, measures=measure(file.location.read_bytes())) for file in corpus
    )


class _Story:
    """What happens to the workers, and the runs it happened to."""

    def __init__(
        self, plan: Plan, corpus: tuple[SourceFile, ...], fleet: Fleet, stage: Stage, display: Display
    ) -> None:
        self.orphans: tuple[Run, ...] = ()
        self.interrupted: tuple[Run, ...] = ()
        self._plan = plan
        self._files = len(corpus)
        self._slow = {file.path for file in corpus if file.fate is Fate.SLOW}
        self._fleet = fleet
        self._stage = stage
        self._say = display.say

    async def tell(self) -> bool:
        """From the first job to the last; False if the time limit came first."""
        try:
            if host_id := await self._in_the_middle("worker-2", after=self._plan.kill_at):
                await self._kill("worker-2", host_id, replacement=f"worker-{self._plan.workers + 1}")
            if host_id := await self._in_the_middle("worker-1", after=self._plan.stop_at):
                await self._restart("worker-1", host_id)
            await self._stage.until(lambda seen: seen.is_over)
            self._say("every job has ended; stopping the workers (SIGTERM)")
            await self._stop_all()
        except OutOfTime:
            self._say(f"time is up: {self._plan.time_limit_s:g} s")
            return False
        return True

    async def _in_the_middle(self, worker: str, *, after: float) -> str | None:
        """Wait until a share of the files has ended and the worker is busy, and has a slow file still to come.

        Gives its host id, or None if all work ended before that.
        """

        def waits(row: JobRow) -> bool:
            is_slow = row.kind == FILE and row.payload["path"] in self._slow
            return (
                is_slow and row.started_at is not None and WAITING[0] < datetime.now(UTC) - row.started_at < WAITING[1]
            )

        def is_in_the_middle(seen: Snapshot) -> bool:
            running, share = seen.of_worker(worker), seen.ended(FILE) / self._files
            is_busy = len(running) >= (BUSY_JOBS if share < after + PATIENCE else 1)
            return share >= after and is_busy and any(map(waits, running))

        seen = await self._stage.until(lambda seen: is_in_the_middle(seen) or seen.is_over)
        return None if seen.is_over else seen.hosts[seen.workers[worker]]

    async def _kill(self, worker: str, host_id: str, replacement: str) -> None:
        """SIGKILL to a worker; returns when its jobs are taken from it."""
        self._fleet.kill(worker)
        killed = time.monotonic()
        self.orphans = _runs_of(host_id, await self._stage.look())
        self._say(f"killed {worker} (SIGKILL) while it ran {_jobs(len(self.orphans))}")
        self._fleet.start_worker(replacement)
        self._say(f"started {replacement} in its place")
        await self._stage.until(lambda seen: not set(_runs(seen.running)).intersection(self.orphans))
        self._say(
            f"{_jobs(len(self.orphans))} taken back from {worker} {time.monotonic() - killed:.1f} s after the kill"
            f" (stale {TIMINGS.stale_s:g} s after its last heartbeat)"
        )
        await self._registered(replacement)

    async def _restart(self, worker: str, host_id: str) -> None:
        """SIGTERM to a worker, then start it again."""
        running = dict.fromkeys(_runs_of(host_id, await self._stage.look()))
        self._fleet.terminate(worker)
        told = time.monotonic()
        self._say(
            f"told {worker} to stop (SIGTERM) while it ran {_jobs(len(running))}, "
            f"with {TIMINGS.shutdown_grace_s:g} s to finish or go back to the queue"
        )

        def has_ended(seen: Snapshot) -> bool:
            running.update(dict.fromkeys(_runs_of(host_id, seen)))  # it may have claimed before it heard
            return self._fleet.has_ended(worker)

        await self._stage.until(has_ended, leaving=[worker])
        self._say_exit(told)
        self.interrupted = tuple(running)
        fences = {run.job_id: run.fence for run in running}
        rows = await self._stage.rows(fences)
        finished = sum(row.status in ENDED and row.fence == fences[row.id] for row in rows)
        self._say(f"{finished} of its jobs finished in time, {len(rows) - finished} went back to the queue")
        self._fleet.start_worker(worker)
        await self._registered(worker)
        self._say(f"{worker} is back")

    async def _registered(self, worker: str) -> None:
        """Wait until a worker is up: before that a SIGTERM would not find its handler."""
        await self._stage.until(lambda seen: seen.workers[worker] in seen.hosts)

    async def _stop_all(self) -> None:
        """SIGTERM to every worker; returns when they have ended."""
        told, workers = time.monotonic(), list(self._fleet.pids())
        for worker in workers:
            self._fleet.terminate(worker)
        for worker in workers:
            await self._stage.until(lambda _, worker=worker: self._fleet.has_ended(worker), leaving=workers)  # type: ignore[misc]
            self._say_exit(told)

    def _say_exit(self, told: float) -> None:
        worker, status = self._fleet.exits[-1]
        self._say(f"{worker} ended with status {status} after {time.monotonic() - told:.1f} s")


def _jobs(count: int) -> str:
    return f"{count} job{'s' if count != 1 else ''}"


def _runs_of(host_id: str, seen: Snapshot) -> tuple[Run, ...]:
    return _runs(row for row in seen.running if row.host_id == host_id)


def _runs(rows: Iterable[JobRow]) -> tuple[Run, ...]:
    return tuple(Run(job_id=row.id, fence=row.fence) for row in rows)
