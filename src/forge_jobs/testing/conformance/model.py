"""A store made of dictionaries: what the state machine compares a real one with.

Written from the promises alone, without `storage.lifecycle`, so that a mistake there is found as well.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from forge_jobs.clock import MICROSECOND, ManualClock, to_us
from forge_jobs.storage.types.finalize import (
    Crashed,
    Dead,
    Done,
    Failed,
    FinalizeOutcome,
    Released,
    Throttled,
)
from forge_jobs.storage.types.job import JobRow
from forge_jobs.storage.types.queue import QueueSettings

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
STALE_US: Final = 30_500_000  # no sum of the machine's steps hits it exactly
MAX_CRASHES: Final = {"red": 3, "blue": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A request in the machine's words; durations are seconds."""

    job_id: str
    queue: str
    kind: str
    priority: int = 0
    delay: int = 0
    ttl: int | None = None
    max_attempts: int = 5
    key: str | None = None
    policy: str = "skip"


@dataclass(slots=True, kw_only=True)
class ModelJob:
    """One row."""

    wish: Wish
    enqueued: int
    scheduled: int
    expires: int | None
    status: str = "pending"
    attempts: int = 0
    crashes: int = 0
    throttles: int = 0
    fence: int = 0
    started: int | None = None
    completed: int | None = None
    beat: int | None = None
    beat_elapsed: int = 0
    beat_boot: int = 0
    slot: str | None = None
    host: str | None = None
    cancel_requested: int | None = None
    dead_reason: str | None = None
    alone: bool = False
    errors: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.wish.job_id

    @property
    def order(self) -> tuple[int, int, str]:
        return self.wish.priority, self.scheduled, self.id

    @property
    def is_waiting(self) -> bool:
        return self.status in ("pending", "failed")

    @property
    def is_running(self) -> bool:
        return self.status == "in_progress"


@dataclass(slots=True)
class ModelQueue:
    """One queue's pause and cool-down."""

    paused: bool = False
    throttle_attempts: int = 0
    throttled_until: int | None = None


class Held(Exception):
    """The key is held and the caller asked for an error."""


class Model:
    """Jobs and queues in dictionaries. Every verb answers what the store should answer."""

    def __init__(self, clock: ManualClock, queues: tuple[str, ...]) -> None:
        self.clock = clock
        self.jobs: dict[str, ModelJob] = {}
        self.queues = {name: ModelQueue() for name in queues}

    @property
    def now(self) -> int:
        return self.clock.now_us()

    def holder(self, key: str | None) -> ModelJob | None:
        """The job that holds the key: the one with it that is not finished."""
        holders = [
            job for job in self.jobs.values() if key and job.wish.key == key and job.status not in ("done", "dead")
        ]
        assert len(holders) <= 1, "two jobs hold one key"
        return holders[0] if holders else None

    def enqueue(self, wish: Wish) -> tuple[str, str, str | None]:
        """`(enqueued | repeated | deduped, id, status of the holder)`."""
        if wish.job_id in self.jobs:
            return "repeated", wish.job_id, None
        holder = self.holder(wish.key)
        if holder is not None:
            if wish.policy == "error":
                raise Held(holder.id)
            if wish.policy == "skip" or holder.is_running:
                return "deduped", holder.id, holder.status
            self._end(holder, "superseded", "superseded")
        self.jobs[wish.job_id] = ModelJob(
            wish=wish,
            enqueued=self.now,
            scheduled=self.now + wish.delay * SECOND,
            expires=None if wish.ttl is None else self.now + wish.ttl * SECOND,
            events=["enqueued"],
        )
        return "enqueued", wish.job_id, None

    def ready(self, queue: str, kinds: tuple[str, ...]) -> list[ModelJob]:
        """The claimable jobs of a queue, in the order of claims."""
        return [] if self._is_held_back(queue) else self._due(queue, kinds)

    def held_back(self) -> list[str]:
        """The queues that are paused or cool down while jobs of theirs are due."""
        return [name for name in self.queues if self._is_held_back(name) and self._due(name, tuple(MAX_CRASHES))]

    def _is_held_back(self, queue: str) -> bool:
        settings = self.queues[queue]
        return settings.paused or (settings.throttled_until is not None and settings.throttled_until > self.now)

    def _due(self, queue: str, kinds: tuple[str, ...]) -> list[ModelJob]:
        jobs = [
            job
            for job in self.jobs.values()
            if job.wish.queue == queue
            and job.wish.kind in kinds
            and job.is_waiting
            and job.scheduled <= self.now
            and not self._is_expired(job)
        ]
        return sorted(jobs, key=lambda job: job.order)

    def any_ready(self) -> list[ModelJob]:
        """The claimable jobs of all queues."""
        return [job for queue in self.queues for job in self.ready(queue, tuple(MAX_CRASHES))]

    def claim(self, queue: str, kinds: tuple[str, ...], host: str, slots: tuple[str, ...], alone: bool) -> list[str]:
        """The ids of the jobs that a claim takes, in order."""
        fit = [job for job in self.ready(queue, kinds) if job.alone == alone]
        taken = fit[: 1 if alone else len(slots)]
        for job, slot in zip(taken, slots, strict=False):
            job.status = "in_progress"
            job.fence += 1
            job.attempts += 1
            job.started = self.now
            job.slot, job.host = slot, host
            self._beat(job)
            job.events.append("started")
        return [job.id for job in taken]

    def beat(
        self, host: str, named: list[tuple[str, int]]
    ) -> tuple[set[tuple[str, int]], set[str], set[tuple[str, int]]]:
        """`(lost, cancel requested, strays)`."""
        mine = {
            (job.id, job.fence): job for job in self.jobs.values() if job.is_running and (job.id, job.fence) in named
        }
        for job in mine.values():
            self._beat(job)
        strays = {(job.id, job.fence) for job in self.jobs.values() if job.is_running and job.host == host}
        asked = {job.id for job in mine.values() if job.cancel_requested is not None}
        return set(named) - set(mine), asked, strays - set(named)

    def settle(self, job_id: str, fence: int, outcome: FinalizeOutcome) -> str:
        """`applied`, `repeated` or `lost`."""
        job = self.jobs.get(job_id)
        if job is None or job.fence != fence:
            return "lost"
        if not job.is_running:
            return "repeated"
        self._cool(job, outcome)
        match outcome:
            case Done():
                job.throttles = 0
                self._end(job, "completed", None)
            case Crashed(delay=delay):
                self._crash(job, "crash", delay // MICROSECOND)
            case _ if job.cancel_requested is not None:
                job.errors.append("cancelled")
                self._end(job, "failed", "cancelled")
            case Dead():
                job.errors.append("dead")
                self._end(job, "failed", "rejected")
            case Failed() if job.attempts >= job.wish.max_attempts:
                job.errors.append("failed")
                self._end(job, "failed", "exhausted")
            case Failed(delay=delay):
                job.errors.append("failed")
                self._wait(job, "failed", "retried", delay // MICROSECOND)
            case Throttled(delay=delay):
                job.attempts -= 1
                job.throttles += 1
                self._wait(job, "pending", "retried", delay // MICROSECOND)
            case Released():
                job.attempts -= 1
                self._wait(job, "pending", "released", None)
        return "applied"

    def stale(self) -> list[ModelJob]:
        """The running jobs whose owner has been silent too long."""
        elapsed = self.clock.elapsed_us()
        return [
            job
            for job in self.jobs.values()
            if job.is_running and (job.beat_boot != self.clock.boot or elapsed - job.beat_elapsed > STALE_US)
        ]

    def revive(self, job: ModelJob, delay: int) -> None:
        """The reaper takes the job from its owner; if it is to run again, after `delay` microseconds."""
        job.fence += 1
        self._crash(job, "lost_worker", delay)

    def cancel(self, job_id: str) -> str:
        job = self.jobs.get(job_id)
        if job is None:
            return "not_found"
        if job.is_running:
            if job.cancel_requested is None:
                job.cancel_requested = self.now
            return "cancel_requested"
        if not job.is_waiting:
            return "already_finished"
        self._end(job, "failed", "cancelled")
        return "cancelled"

    def delete(self, job_id: str) -> str:
        job = self.jobs.get(job_id)
        if job is not None and job.is_running:
            return self.cancel(job_id)
        return "not_found" if self.jobs.pop(job_id, None) is None else "deleted"

    def retry(self, job_id: str) -> tuple[str, str | None]:
        """`(retried | held | refused, holder or status)`."""
        job = self.jobs.get(job_id)
        if job is None or job.status not in ("failed", "dead"):
            return "refused", job.status if job is not None else None
        holder = self.holder(job.wish.key)
        if holder is not None and holder is not job:
            return "held", holder.id
        job.status, job.dead_reason, job.completed, job.cancel_requested = "pending", None, None, None
        job.attempts = job.crashes = 0
        job.alone = False
        job.scheduled = self.now
        job.events.append("requeued")
        return "retried", None

    def run_now(self, job_id: str) -> bool:
        job = self.jobs.get(job_id)
        if job is None or job.status != "pending":
            return False
        job.scheduled = self.now
        return True

    def expire(self) -> int:
        due = [job for job in self.jobs.values() if job.is_waiting and self._is_expired(job)]
        for job in due:
            job.errors.append("expired")
            self._end(job, "failed", "expired")
        return len(due)

    def cleanup(self) -> tuple[int, int]:
        """`(done, dead)` jobs that retention removed: after a week, after a month."""
        gone = {
            status: [
                job.id
                for job in self.jobs.values()
                if job.status == status and job.completed is not None and self.now - job.completed > days * DAY
            ]
            for status, days in (("done", 7), ("dead", 30))
        }
        for ids in gone.values():
            for job_id in ids:
                del self.jobs[job_id]
        return len(gone["done"]), len(gone["dead"])

    def rows(self) -> dict[str, tuple[object, ...]]:
        """Every row, in the form of `shown`."""
        return {
            job.id: (
                job.wish.queue, job.wish.kind, job.status, job.wish.priority, job.attempts, job.wish.max_attempts,
                job.crashes, job.throttles, job.fence, job.enqueued, job.scheduled, job.expires, job.started,
                job.completed, job.beat, job.slot, job.host, job.wish.key, job.dead_reason, bool(job.errors),
                job.cancel_requested,
            )
            for job in self.jobs.values()
        }  # fmt: skip

    def events(self) -> Counter[tuple[str | None, str]]:
        """How often each event was told of each job."""
        return Counter((job.id, event) for job in self.jobs.values() for event in job.events)

    def windows(self) -> dict[str, tuple[bool, int, int | None]]:
        return {name: (q.paused, q.throttle_attempts, q.throttled_until) for name, q in self.queues.items()}

    def _is_expired(self, job: ModelJob) -> bool:
        return job.expires is not None and job.expires <= self.now

    def _beat(self, job: ModelJob) -> None:
        job.beat, job.beat_elapsed, job.beat_boot = self.now, self.clock.elapsed_us(), self.clock.boot

    def _leave(self, job: ModelJob, status: str, event: str) -> None:
        job.status = status
        job.slot = job.beat = None  # the host stays, for people to see where it ran last
        job.events.append(event)

    def _end(self, job: ModelJob, event: str, reason: str | None) -> None:
        self._leave(job, "dead" if reason else "done", event)
        job.completed, job.dead_reason = self.now, reason

    def _wait(self, job: ModelJob, status: str, event: str, delay: int | None) -> None:
        self._leave(job, status, event)
        if delay is not None:
            job.scheduled = self.now + delay

    def _crash(self, job: ModelJob, kind: str, delay: int) -> None:
        job.crashes += 1
        limit = MAX_CRASHES[job.wish.kind]
        if job.cancel_requested is not None:
            job.errors.append("cancelled")
            self._end(job, "failed", "cancelled")
            return
        job.errors.append(kind)
        if job.crashes >= limit:
            self._end(job, "failed", "crashed")
        elif job.attempts >= job.wish.max_attempts:
            self._end(job, "failed", "exhausted")
        else:
            self._wait(job, "failed", "retried", delay)
            job.alone = job.crashes + 1 >= limit

    def _cool(self, job: ModelJob, outcome: FinalizeOutcome) -> None:
        queue = self.queues[job.wish.queue]
        until = queue.throttled_until
        if (
            isinstance(outcome, Done)
            and queue.throttle_attempts
            and until is not None
            and until <= self.now - 120 * SECOND
        ):
            queue.throttle_attempts, queue.throttled_until = 0, None
        if not isinstance(outcome, Throttled) or not outcome.cool_down or job.cancel_requested is not None:
            return
        end = self.now + outcome.delay // MICROSECOND
        if until is not None and until > self.now:
            if outcome.hinted:
                queue.throttled_until = max(until, end)
            return
        if not outcome.hinted:
            queue.throttle_attempts = min(queue.throttle_attempts + 1, 30)
        else:
            queue.throttle_attempts = max(queue.throttle_attempts, 1)
        queue.throttled_until = end


def shown(row: JobRow) -> tuple[object, ...]:
    """A real row in the form of `Model.rows`."""
    instants = (row.enqueued_at, row.scheduled_at, row.expires_at, row.started_at, row.completed_at, row.heartbeat_at)
    times = tuple(None if at is None else to_us(at) for at in instants)
    asked = None if row.cancel_requested_at is None else to_us(row.cancel_requested_at)
    return (
        row.queue, row.kind, row.status, row.priority, row.attempts, row.max_attempts, row.crashes, row.throttles,
        row.fence, *times, row.process_id, row.host_id, row.dedupe_key, row.dead_reason, row.last_error is not None,
        asked,
    )  # fmt: skip


def window(settings: QueueSettings) -> tuple[bool, int, int | None]:
    """A real queue in the form of `Model.windows`."""
    until = settings.throttled_until
    return settings.paused, settings.throttle_attempts, None if until is None else to_us(until)
