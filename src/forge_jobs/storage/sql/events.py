"""Job events, off the hot path: a bounded buffer, flushed in chunks.

The first events of a second are kept one by one, fewer while it goes on; above that, enqueued, started and completed
are counted per queue, kind and minute, so that a drain at full speed writes a handful of rows. Counts are never
sampled; failures, throttles and releases are always kept per job.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from forge_jobs import limits
from forge_jobs.clock import to_us
from forge_jobs.ids import JobId
from forge_jobs.observe import Observer
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Tx
from forge_jobs.storage.sql.observed import observe_events, observe_jobs
from forge_jobs.storage.sql.rows import job_event
from forge_jobs.storage.types.event import EventType, JobEvent
from forge_jobs.storage.types.job import JobRecord, NewJob

log = logging.getLogger("forge_jobs.events")

INSERT_EVENT = statement("insert_event")
TIMELINE = statement("timeline")
EVENTS_OF_JOB = statement("events_of_job")

PER_JOB_PER_SECOND: Final = 1_000
PER_JOB_AT_SPEED: Final = 100
"""So many are kept in each further second of a drain at full speed, for whoever watches."""
FLUSH_CHUNK: Final = 500
_SECOND_US: Final = 1_000_000
_MINUTE_US: Final = 60 * _SECOND_US


class SqlEvents:
    """The event store over a driver, with its buffer. Pushed to from the event loop only."""

    def __init__(self, driver: Driver, observer: Observer) -> None:
        self._driver = driver
        self._observer = observer
        self._buffer: deque[JobEvent] = deque()
        self._counts: Counter[tuple[int, str, str, str]] = Counter()
        self._latest_us = 0
        self._flushing = asyncio.Lock()
        self._second = self._this_second = 0
        self._kept_per_second = PER_JOB_PER_SECOND
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Events in the buffer."""
        return len(self._buffer) + len(self._counts)

    def push(self, events: Sequence[JobEvent]) -> None:
        if events:
            observe_events(self._observer, events)
            self._keep(events)

    def _keep(self, events: Sequence[JobEvent]) -> None:
        room = max(limits.EVENT_BUFFER - len(self._buffer), 0)
        if len(events) > room:
            if self.dropped == 0:
                log.warning("events_dropped: the buffer of %d events is full", limits.EVENT_BUFFER)
            self.dropped += len(events) - room
            self._observer.count("events_dropped", n=len(events) - room)
            events = events[:room]
        self._buffer.extend(events)

    def forget(self, job_ids: Collection[str]) -> None:
        """Drop what waits of jobs that were deleted."""
        self._buffer = deque(event for event in self._buffer if event.job_id not in job_ids)

    def push_jobs(self, type: EventType, at_us: int, jobs: Sequence[NewJob] | Sequence[JobRecord]) -> None:
        """One event of `type` for each job, kept one by one or counted, as the rate has it."""
        observe_jobs(self._observer, type, at_us, jobs)
        if at_us // _SECOND_US != self._second:
            self._begin_second(at_us // _SECOND_US)
        keep = max(self._kept_per_second - self._this_second, 0)
        self._this_second += len(jobs)
        if keep:
            self._keep([_event(type, at_us, job) for job in jobs[:keep]])
        if len(jobs) > keep:
            minute, self._latest_us = at_us // _MINUTE_US * _MINUTE_US, at_us
            word = type.value
            self._counts.update([(minute, word, job.queue, job.kind) for job in jobs[keep:]])

    def _begin_second(self, second: int) -> None:
        """Behind a second with very many events another is expected, of which a few will do."""
        many = second == self._second + 1 and self._this_second > PER_JOB_PER_SECOND
        self._kept_per_second = PER_JOB_AT_SPEED if many else PER_JOB_PER_SECOND
        self._second, self._this_second = second, 0

    async def flush(self) -> int:
        async with self._flushing:  # who flushes finds written what another flush took before
            return await self._flush()

    async def _flush(self) -> int:
        counted = [
            JobEvent(min(self._latest_us, minute + _MINUTE_US - 1), type, queue, kind, count=n)
            for (minute, type, queue, kind), n in self._counts.items()
        ]
        self._counts.clear()
        events = [*self._buffer, *counted]
        self._buffer.clear()
        written = 0
        try:
            while written < len(events):
                chunk = events[written : written + FLUSH_CHUNK]
                await self._driver.write(lambda tx, chunk=chunk: _insert(tx, chunk), label="events")  # type: ignore[misc]
                written += len(chunk)
        except BaseException:
            self._buffer.extendleft(reversed(events[written:]))
            raise
        return sum(event.count for event in events)

    async def timeline(self, since: datetime, until: datetime, *, limit: int = 1_000) -> list[JobEvent]:
        params = {"since": to_us(since), "until": to_us(until), "limit": limit}
        return await self._driver.read(lambda tx: [job_event(row) for row in tx.rows(TIMELINE, params)])

    async def of_job(self, job_id: JobId) -> list[JobEvent]:
        return await self._driver.read(lambda tx: [job_event(row) for row in tx.rows(EVENTS_OF_JOB, {"id": job_id})])


def _event(type: EventType, at_us: int, job: NewJob | JobRecord) -> JobEvent:
    if isinstance(job, NewJob):
        return JobEvent(at_us, type.value, job.queue, job.kind, job.id)
    if type is EventType.STARTED:
        waited = max(at_us - job.scheduled_us, 0)
        return JobEvent(at_us, type.value, job.queue, job.kind, job.id, job.attempts, None, waited)
    took, total = max(at_us - job.started_us, 0), max(at_us - job.enqueued_us, 0)
    return JobEvent(at_us, type.value, job.queue, job.kind, job.id, job.attempts, None, took, 1, total)


def _insert(tx: Tx, events: Sequence[JobEvent]) -> None:
    tx.change_many(
        INSERT_EVENT,
        [
            (e.at_us, e.type, e.queue, e.kind, e.job_id, e.attempt, e.cause, e.duration_us, e.count, e.total_us)
            for e in events
        ],
    )
