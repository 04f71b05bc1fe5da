"""What the conductor sees while the demo runs, and how it waits for something to happen."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from forge_jobs import Storage
from forge_jobs.demo.fleet import Fleet
from forge_jobs.demo.jobs import KINDS
from forge_jobs.demo.plan import TIMINGS
from forge_jobs.demo.upstream import read_log
from forge_jobs.storage.types.job import JobFilter, JobRow, JobStatus

LOOK_S: Final = 0.1
MOST_RUNNING: Final = 1_000
ENDED: Final = (JobStatus.DONE, JobStatus.DEAD)


class OutOfTime(Exception):
    """The run took longer than its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where everything stands.

    `files` is the size of the corpus, `counts` jobs by kind and status, `running` the jobs in progress, `workers` the
    pid of each worker, `hosts` the host id by pid of those that have registered, `answers` the upstream's by status.
    """

    elapsed_s: float
    files: int
    counts: Mapping[str, Mapping[str, int]]
    running: tuple[JobRow, ...]
    hosts: Mapping[int, str]
    workers: Mapping[str, int]
    answers: Mapping[int, int]

    def count(self, *statuses: str) -> int:
        """Jobs of any kind in these statuses."""
        return sum(counts.get(status, 0) for counts in self.counts.values() for status in statuses)

    def ended(self, kind: str) -> int:
        """Jobs of a kind that are done or dead."""
        return sum(self.counts[kind].get(status, 0) for status in ENDED)

    def total(self, kind: str) -> int:
        """Jobs of a kind."""
        return sum(self.counts[kind].values())

    @property
    def is_over(self) -> bool:
        """Nothing waits and nothing runs.

        A job enqueues what follows from it before it ends, and `counts` were taken in the order of the kinds: what is
        seen as ended has all its follow-ups in the counts after it.
        """
        return all(self.ended(kind) == self.total(kind) for kind in self.counts)

    def of_worker(self, worker: str) -> tuple[JobRow, ...]:
        """The jobs in progress of a worker's process."""
        host = self.hosts.get(self.workers.get(worker, 0))
        return tuple(row for row in self.running if host is not None and row.host_id == host)


class Display(Protocol):
    """Where the demo tells what it does."""

    def say(self, line: str) -> None:
        """One event, to stay on the screen."""

    def show(self, seen: Snapshot) -> None:
        """The newest progress, in place of the one before."""


class Stage:
    """The running demo: its store, its processes and who watches."""

    def __init__(self, storage: Storage, fleet: Fleet, display: Display, *, files: int, time_limit_s: float) -> None:
        self._storage = storage
        self._fleet = fleet
        self._display = display
        self._files = files
        self._started = time.monotonic()
        self._time_limit_s = time_limit_s
        self._answers: Counter[int] = Counter()
        self._log_offset = 0

    async def until(self, happened: Callable[[Snapshot], bool], *, leaving: Collection[str] = ()) -> Snapshot:
        """Look and show, over and over, until something has happened; what was seen then.

        Raises:
            OutOfTime: the demo's limit came first.
            DemoError: a process ended that is not `leaving`.
        """
        while True:
            self._fleet.check(leaving)
            seen = await self.look()
            self._display.show(seen)
            if happened(seen):
                return seen
            if seen.elapsed_s > self._time_limit_s:
                raise OutOfTime
            await asyncio.sleep(LOOK_S)

    async def rows(self, job_ids: Iterable[str]) -> tuple[JobRow, ...]:
        """These jobs, as they are now."""
        chosen = JobFilter(ids=tuple(job_ids))
        return (await self._storage.jobs.list_jobs(chosen, limit=MOST_RUNNING)).items

    async def look(self) -> Snapshot:
        """See where everything stands now."""
        fresh, self._log_offset = read_log(self._fleet.upstream_log, self._log_offset)
        self._answers.update(answer.status for answer in fresh)
        processes = await self._storage.processes.list(timedelta(seconds=TIMINGS.stale_s))
        in_progress = JobFilter(statuses=(JobStatus.IN_PROGRESS,))
        return Snapshot(
            elapsed_s=time.monotonic() - self._started,
            files=self._files,
            counts={kind: await self._storage.jobs.count(JobFilter(kinds=(kind,))) for kind in KINDS},
            running=(await self._storage.jobs.list_jobs(in_progress, limit=MOST_RUNNING)).items,
            hosts={process.info.pid: process.info.host_id for process in processes},
            workers=self._fleet.pids(),
            answers=dict(self._answers),
        )
