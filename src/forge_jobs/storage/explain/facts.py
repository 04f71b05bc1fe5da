"""What is known of a queue, its workers and one of its jobs at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from forge_jobs.ids import JobId
from forge_jobs.storage.bucket import Bucket
from forge_jobs.storage.types.process import ProcessInfo, ProcessRow, ProcessState
from forge_jobs.storage.types.queue import QueueSettings
from forge_jobs.storage.types.rate_limit import Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A live process that serves the queue.

    `cut_off`: it has been silent for so long that it claims nothing until the store takes its heartbeat again. `slots`
    are those open for the queue, `busy` its running jobs of the queue, `busy_in_all` those of all queues.
    """

    info: ProcessInfo
    cut_off: bool
    slots: int
    busy: int
    busy_in_all: int
    share: int | None = None

    @property
    def name(self) -> str:
        return self.info.label or self.info.host_id

    @property
    def idle(self) -> int:
        return max(self.slots - self.busy, 0)

    @property
    def is_draining(self) -> bool:
        return self.info.state is ProcessState.DRAINING

    def gate(self, kind: str) -> Gate | None:
        """What a claim of a job of this kind pays there."""
        return next((gate for gate in self.info.gates if gate.kind == kind), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """The job of a queue that has been running for longest."""

    job_id: JobId
    started_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """A queue with everything that its jobs depend on.

    `workers` are the live processes that serve it, `last_served` the silent one that did so last. `buckets` are those
    of the scopes that its workers pay from; a scope that does not exist is missing. `reapers` are the live processes of
    any queue whose reaper makes progress. `median_run` is that of the last hour.
    """

    settings: QueueSettings
    now_us: int
    stale_after: timedelta
    workers: Sequence[Worker]
    live_processes: int
    reapers: int
    last_served: ProcessRow | None = None
    buckets: Mapping[str, Bucket] = field(default_factory=dict)
    oldest: Oldest | None = None
    median_run: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """A job as its row has it, in microseconds, and what else was found of it.

    `silent_us`: how long its owner has not beaten for it, null if that was before the host was started. `owner` is
    the owner's process. `canceller` asked for its cancel. `holder` is another job with its dedupe key. `put_off`: its
    last release was for want of tokens.
    """

    id: JobId
    queue: str
    kind: str
    status: str
    priority: int
    attempts: int
    max_attempts: int
    crashes: int
    throttles: int
    alone: bool
    enqueued_us: int
    scheduled_us: int
    expires_us: int | None
    started_us: int | None
    completed_us: int | None
    heartbeat_us: int | None
    silent_us: int | None
    process_id: str | None
    host_id: str | None
    dedupe_key: str | None
    dead_reason: str | None
    last_error: str | None
    cancel_us: int | None
    damage: str | None = None
    owner: ProcessRow | None = None
    canceller: str | None = None
    holder: JobId | None = None
    put_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job that is due stands: `ahead` ready jobs before it, `or_more` if they were not counted to the end, and
    whether the next claim of a worker with an idle slot takes it."""

    ahead: int
    or_more: bool
    first: bool
