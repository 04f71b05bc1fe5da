"""What is known when the demo's run is over: the material of the final check and of the table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from forge_jobs import Storage
from forge_jobs.demo import results
from forge_jobs.demo.corpus import Fate, Measures
from forge_jobs.demo.jobs import FILE, KINDS, MODULE
from forge_jobs.demo.results import Result
from forge_jobs.demo.upstream import Answered, read_log
from forge_jobs.storage.types.event import EventType
from forge_jobs.storage.types.job import JobFilter, JobRow

PAGE: Final = 500
EVENTS: Final = 100_000
ITEM_KEY: Final = {FILE: "path", MODULE: "module"}
"""Where in its payload a job names what it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFile:
    """A file of the corpus with what is really in it, counted by the conductor from the disk."""

    path: str
    fate: Fate
    measures: Measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """One line of a job's error history: the run it ended, and its kind (`failed`, `lost_worker`, …)."""

    fence: int
    kind_of_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFact:
    """A job at the end. `item` is its file or module; `releases` counts the runs that a worker handed back."""

    id: str
    kind: str
    item: str
    status: str
    dead_reason: str | None
    attempts: int
    crashes: int
    fence: int
    mishaps: tuple[Mishap, ...]
    releases: int
    enqueued_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @property
    def is_recovered(self) -> bool:
        """It was taken from a worker that fell silent, at least once."""
        return any(mishap.kind_of_error == "lost_worker" for mishap in self.mishaps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A job that was running in a worker at a certain moment."""

    job_id: str
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Happenings:
    """What the conductor did to the workers.

    `orphans` are the runs that the killed worker took with it, `interrupted` those that the stopped worker had when it
    was told. `exits` names each worker that ended, in order, with its exit status, negative for a signal; `begun` is
    how many were started at the beginning.
    """

    orphans: tuple[Run, ...] = ()
    interrupted: tuple[Run, ...] = ()
    exits: tuple[tuple[str, int], ...] = ()
    begun: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the check and the table look at. `finished`: the run came to its end within its time limit."""

    finished: bool
    files: tuple[ExpectedFile, ...]
    answers: tuple[Answered, ...]
    results: tuple[Result, ...]
    jobs: tuple[JobFact, ...]
    happenings: Happenings
    took: timedelta

    def of_kind(self, kind: str) -> list[JobFact]:
        return [job for job in self.jobs if job.kind == kind]


async def collect(
    storage: Storage,
    *,
    files: tuple[ExpectedFile, ...],
    log: Path,
    table: Path,
    happenings: Happenings,
    finished: bool,
    started_at: datetime,
) -> Facts:
    """Read everything there is to know about the run."""
    return Facts(
        finished=finished,
        files=files,
        answers=tuple(read_log(log)[0]),
        results=results.read(table),
        jobs=await _jobs(storage, started_at),
        happenings=happenings,
        took=datetime.now(UTC) - started_at,
    )


async def _jobs(storage: Storage, since: datetime) -> tuple[JobFact, ...]:
    events = await storage.events.timeline(since, datetime.now(UTC) + timedelta(seconds=1), limit=EVENTS)
    releases = Counter(event.job_id for event in events if event.type == EventType.RELEASED)
    facts: list[JobFact] = []
    cursor: str | None = None
    while True:
        page = await storage.jobs.list_jobs(JobFilter(kinds=KINDS), limit=PAGE, cursor=cursor, with_total=False)
        for row in page.items:
            detail = await storage.jobs.get(row.id)
            mishaps = () if detail is None else detail.history
            facts.append(
                _fact(
                    row,
                    tuple(Mishap(fence=entry.fence, kind_of_error=entry.kind_of_error) for entry in mishaps),
                    releases[row.id],
                )
            )
        cursor = page.next_cursor
        if cursor is None:
            return tuple(facts)


def _fact(row: JobRow, mishaps: tuple[Mishap, ...], releases: int) -> JobFact:
    return JobFact(
        id=row.id,
        kind=row.kind,
        item=row.payload[ITEM_KEY[row.kind]] if row.kind in ITEM_KEY else "",
        status=row.status,
        dead_reason=row.dead_reason,
        attempts=row.attempts,
        crashes=row.crashes,
        fence=row.fence,
        mishaps=mishaps,
        releases=releases,
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
    )
