"""One look at a store: what the view shows. No terminal here."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from forge_jobs.clock import from_us
from forge_jobs.ids import JobId
from forge_jobs.redact import Secrets
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import JobFilter, JobRow, JobStatus
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.storage.types.queue import QueueCounts, QueueSettings

RUNNING_SHOWN: Final = 50
ENDED_SHOWN: Final = 50
ENDED_EVERY_S: Final = 5.0
LEAST_REST: Final = 20
"""A search for failed and dead jobs that took long is not repeated for so many times as long."""
RATE_OVER_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLine:
    """A queue as it is shown. `rate_per_s`: jobs that ended lately, None before two looks."""

    settings: QueueSettings
    counts: QueueCounts
    slots: int
    busy: int
    rate_per_s: float | None
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything that is shown, at one time."""

    at: datetime
    queues: Sequence[QueueLine]
    processes: Sequence[ProcessRow]
    running: Sequence[JobRow]
    ended: Sequence[JobRow]
    """Failed and dead jobs, newest first."""
    secrets: Secrets
    """What is hidden of them."""


class Looker:
    """Looks again and again, and remembers what rates need."""

    def __init__(self, storage: Storage, stale_after: timedelta) -> None:
        self._storage = storage
        self._stale_after = stale_after
        self._finished: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._ended: Sequence[JobRow] = ()
        self._ended_due = 0.0

    async def look(self) -> Look:
        """Costs what waits and runs, and every few seconds a search for the newest failed and dead jobs."""
        storage = self._storage
        settings = await storage.queues.list()
        counts = await storage.queues.recent_counts()
        processes = await storage.processes.list(self._stale_after)
        now = from_us(storage.clock.now_us())
        live = [row.info for row in processes if row.live]
        slots = sum((Counter(info.slots) for info in live), Counter[str]())
        return Look(
            at=now,
            queues=[self._line(one, counts.get(one.name, QueueCounts()), slots[one.name], now) for one in settings],
            processes=processes,
            running=await self._running(processes),
            ended=await self._newest_ended(),
            secrets=await storage.kinds.secrets(),
        )

    def forget_ended(self) -> None:
        """Look for failed and dead jobs with the next look: one was retried."""
        self._ended_due = 0.0

    def _line(self, settings: QueueSettings, counts: QueueCounts, slots: int, now: datetime) -> QueueLine:
        return QueueLine(
            settings=settings,
            counts=counts,
            slots=slots,
            busy=counts.in_progress,
            rate_per_s=self._rate(settings.name, counts.done + counts.dead),
            state=_state(settings, counts, slots, now),
        )

    def _rate(self, queue: str, finished: int) -> float | None:
        seen, now = self._finished[queue], time.monotonic()
        if seen and finished < seen[-1][1]:  # retention took some away
            seen.clear()
        seen.append((now, finished))
        while len(seen) > 2 and now - seen[1][0] > RATE_OVER_S:
            seen.popleft()
        (then, before), (until, after) = seen[0], seen[-1]
        return None if until == then else (after - before) / (until - then)

    async def _running(self, processes: Sequence[ProcessRow]) -> list[JobRow]:
        """By their ids, which workers tell: so no job is looked at that does not run."""
        ids = [job_id for row in processes if row.live for job_id in row.info.running.values()]
        details = [await self._storage.jobs.get(JobId(job_id)) for job_id in ids[:RUNNING_SHOWN]]
        rows = [detail.row for detail in details if detail and detail.row.status == JobStatus.IN_PROGRESS]
        return sorted(rows, key=lambda row: row.started_at or row.enqueued_at)

    async def _newest_ended(self) -> Sequence[JobRow]:
        began = time.monotonic()
        if began >= self._ended_due:
            chosen = JobFilter(statuses=(JobStatus.FAILED, JobStatus.DEAD))
            page = await self._storage.jobs.list_jobs(chosen, limit=ENDED_SHOWN, with_total=False)
            self._ended, now = page.items, time.monotonic()
            self._ended_due = now + max(ENDED_EVERY_S, LEAST_REST * (now - began))
        return self._ended


def _state(settings: QueueSettings, counts: QueueCounts, slots: int, now: datetime) -> str:
    if settings.paused:
        return "paused"
    if settings.max_workers == 0:
        return "stopped"
    if settings.throttled_until is not None and settings.throttled_until > now:
        return "cooling down"
    if not slots and (counts.ready or counts.failed):
        return "unserved"
    return "partly paused" if settings.paused_processes else "open"


SORTS: Final[Mapping[str, Sequence[str]]] = {
    "queues": ("name", "ready", "running", "rate", "oldest"),
    "workers": ("worker", "running", "beat"),
    "jobs": ("age", "queue", "kind", "status"),
}
"""What each table can be sorted by, in the order in which `s` goes through them."""


def sorted_queues(lines: Sequence[QueueLine], by: str) -> list[QueueLine]:
    """By name, or the most first."""
    match by:
        case "ready":
            return sorted(lines, key=lambda one: (-one.counts.ready, one.settings.name))
        case "running":
            return sorted(lines, key=lambda one: (-one.busy, one.settings.name))
        case "rate":
            return sorted(lines, key=lambda one: (-(one.rate_per_s or 0), one.settings.name))
        case "oldest":
            return sorted(
                lines,
                key=lambda one: (one.counts.oldest_ready_at is None, one.counts.oldest_ready_at, one.settings.name),
            )
        case _:
            return sorted(lines, key=lambda one: one.settings.name)


def sorted_processes(rows: Sequence[ProcessRow], by: str) -> list[ProcessRow]:
    """By label, the busiest first, or the longest silent first."""
    match by:
        case "running":
            return sorted(rows, key=lambda row: -len(row.info.running))
        case "beat":
            return sorted(rows, key=lambda row: row.heartbeat_at)
        case _:
            return sorted(rows, key=lambda row: row.info.label or row.info.host_id)


def sorted_jobs(rows: Sequence[JobRow], by: str) -> list[JobRow]:
    """By what is asked for; as they come, running ones oldest first, by default."""
    match by:
        case "queue":
            return sorted(rows, key=lambda row: (row.queue, row.id))
        case "kind":
            return sorted(rows, key=lambda row: (row.kind, row.id))
        case "status":
            return sorted(rows, key=lambda row: (row.status, row.id))
        case _:
            return list(rows)
