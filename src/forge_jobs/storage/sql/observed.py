"""What job events come to in counts, histograms and hooks. Told after the change is committed, once per batch."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from forge_jobs.observe import Observer
from forge_jobs.storage.types.event import EventType, JobEvent
from forge_jobs.storage.types.job import JobRecord, NewJob

_CRASHES: Final = frozenset({"crashed", "lost_worker"})
_KEY: Final = attrgetter("queue", "kind")
_NAMES: Final = {
    EventType.ENQUEUED: "job_enqueued",
    EventType.STARTED: "job_started",
    EventType.COMPLETED: "job_done",
    EventType.FAILED: "job_dead",
    EventType.RETRIED: "job_failed",
    EventType.RELEASED: "job_released",
    EventType.SUPERSEDED: "job_dead",
    EventType.REQUEUED: "job_requeued",
}


def observe_jobs(observer: Observer, type: EventType, at_us: int, jobs: Sequence[NewJob] | Sequence[JobRecord]) -> None:
    """Jobs that were enqueued, started or completed, all at the same time. The path that a full drain takes."""
    for key, group in _by_queue_and_kind(jobs):
        observer.count(type.value, *key, n=len(group))
        if type is EventType.STARTED:
            _measure(observer, "wait_seconds", key, [at_us - job.scheduled_us for job in group])
        elif type is EventType.COMPLETED:
            _measure(observer, "run_seconds", key, [at_us - job.started_us for job in group])
            _measure(observer, "total_seconds", key, [at_us - job.enqueued_us for job in group])
    if observer.wants(_NAMES[type]):
        for job in jobs:
            attempt = job.attempts if isinstance(job, JobRecord) else None
            observer.happened(_NAMES[type], job_id=job.id, queue=job.queue, kind=job.kind, attempt=attempt)


def observe_events(observer: Observer, events: Sequence[JobEvent]) -> None:
    """Events that come one by one: retries, failures, releases."""
    for event in events:
        _count(observer, event)
        name = _name(event)
        if observer.wants(name):
            observer.happened(
                name,
                job_id=event.job_id,
                queue=event.queue,
                kind=event.kind,
                attempt=event.attempt,
                cause=event.cause,
                duration_s=None if event.duration_us is None else event.duration_us / 1e6,
            )


def _by_queue_and_kind(jobs: Sequence[Any]) -> list[tuple[tuple[str, str], Sequence[Any]]]:
    keys = set(map(_KEY, jobs))
    if len(keys) == 1:  # nearly always
        return [(keys.pop(), jobs)]
    groups: dict[tuple[str, str], list[Any]] = {key: [] for key in keys}
    for job in jobs:
        groups[job.queue, job.kind].append(job)
    return list(groups.items())


def _measure(observer: Observer, name: str, key: tuple[str, str], us: list[int]) -> None:
    """Times in microseconds; what a step of a clock made negative counts as nothing."""
    observer.histogram(name, *key).add_all([one / 1e6 if one > 0 else 0.0 for one in us])


def _count(observer: Observer, event: JobEvent) -> None:
    job, cause = (event.queue, event.kind), event.cause or ""
    match event.type:
        case EventType.COMPLETED:
            observer.count("completed", *job)
            observer.measure("run_seconds", (event.duration_us or 0) / 1e6, *job)
            observer.measure("total_seconds", (event.total_us or 0) / 1e6, *job)
        case EventType.FAILED | EventType.SUPERSEDED:
            observer.count("dead", *job, cause or event.type)
            if event.duration_us is not None:  # it ran
                observer.count("failed_attempts", *job, cause)
        case EventType.RETRIED if cause == "throttled":
            observer.count("throttled", *job)
        case EventType.RETRIED if cause in _CRASHES:
            observer.count("crashed", *job)
        case EventType.RETRIED:
            observer.count("failed_attempts", *job, cause)
        case EventType.RELEASED:
            observer.count("released", *job)


def _name(event: JobEvent) -> str:
    if event.cause == "throttled":
        return "job_throttled"
    if event.type == EventType.RETRIED and event.cause in _CRASHES:
        return "job_crashed"
    return _NAMES[EventType(event.type)]
