"""A job as people and programs see it, with its secrets hidden."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any, Final

from forge_jobs.clock import from_us
from forge_jobs.redact import redact_payload, redact_text
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.job import ErrorEntry, JobDetail, JobRow, Page, Progress
from forge_jobs.storage.types.log import LogLine

PREVIEW_LENGTH: Final = 200


def job_row(job: JobRow) -> dict[str, Any]:
    """The fields of a job in a list."""
    return {
        "id": job.id,
        "queue": job.queue,
        "kind": job.kind,
        "status": job.status,
        "priority": job.priority,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "crashes": job.crashes,
        "fence": job.fence,
        "enqueued_at": job.enqueued_at,
        "scheduled_at": job.scheduled_at,
        "expires_at": job.expires_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
        "heartbeat_at": job.heartbeat_at,
        "process_id": job.process_id,
        "worker": job.worker,
        "dedupe_key": job.dedupe_key,
        "dead_reason": job.dead_reason,
        "last_error": None if job.last_error is None else redact_text(job.last_error),
        "cancel_requested_at": job.cancel_requested_at,
        "tags": list(job.tags),
        "parent_id": job.parent_id,
        "schedule": job.schedule,
        "payload_preview": preview(job.payload_text),
    }


def job_page(page: Page) -> dict[str, Any]:
    """One page of jobs."""
    return {
        "items": [job_row(job) for job in page.items],
        "next_cursor": page.next_cursor,
        "total": page.total,
        "total_at_least": page.total_at_least,
    }


def job_detail(detail: JobDetail, timeline: Sequence[JobEvent], log: Sequence[LogLine] = ()) -> dict[str, Any]:
    """Everything about one job."""
    return {
        **job_row(detail.row),
        "payload": payload(detail.row.payload_text),
        "history": [history_entry(entry) for entry in detail.history],
        "timeline": [event(one) for one in timeline],
        "log": [log_line(one) for one in log],
        "traceback": None if detail.traceback is None else redact_text(detail.traceback),
        "progress": None if detail.progress is None else progress(detail.progress),
    }


def payload(text: str) -> Any:
    """The payload with its secrets hidden; of damaged text only the size, since nothing in it can be hidden."""
    return json.loads(redact_payload(text))


def preview(text: str) -> str:
    """The head of the payload in one line, secrets hidden."""
    shown = redact_payload(text)
    return shown if len(shown) <= PREVIEW_LENGTH else shown[: PREVIEW_LENGTH - 1] + "…"


def history_entry(entry: ErrorEntry) -> dict[str, Any]:
    """One failure."""
    return {
        "at": entry.at,
        "attempt": entry.attempt,
        "fence": entry.fence,
        "process": entry.process,
        "message": redact_text(entry.message),
        "kind_of_error": entry.kind_of_error,
    }


def event(one: JobEvent) -> dict[str, Any]:
    """One event of a timeline."""
    return {
        "at": from_us(one.at_us),
        "type": one.type,
        "queue": one.queue,
        "kind": one.kind,
        "job_id": one.job_id,
        "attempt": one.attempt,
        "cause": one.cause,
        "duration_ms": None if one.duration_us is None else one.duration_us / 1000,
        "count": one.count,
    }


def log_line(one: LogLine) -> dict[str, Any]:
    """One line of a job's log."""
    return {
        "at": from_us(one.at_us),
        "type": "log",
        "level": one.level,
        "logger": one.logger,
        "message": redact_text(one.message),
        "queue": one.queue,
        "kind": one.kind,
        "job_id": one.job_id,
        "attempt": one.attempt,
        "fence": one.fence,
        "skipped": one.skipped,
    }


def log_text(one: LogLine, *, job: bool = False) -> list[str]:
    """The same for people, with its job or without: what was dropped before it, then its message line by line."""
    first, *rest = redact_text(one.message).splitlines() or [""]
    parts = [clock(one.at_us), one.level.ljust(10), *([one.job_id, one.kind] if job else []), first]
    dropped = [f"… {one.skipped} lines dropped …"] if one.skipped else []
    return [*dropped, "  ".join(parts), *(f"    {line}" for line in rest)]


def clock(at_us: int) -> str:
    """The time of day."""
    return from_us(at_us).astimezone(UTC).strftime("%H:%M:%S.%f")[:-3] + "Z"


def duration(one: JobEvent) -> str:
    """How long the run took that ended with this event."""
    if one.duration_us is None:
        return "-"
    span = timedelta(microseconds=one.duration_us)
    return (
        f"{span / timedelta(milliseconds=1):.1f}ms" if span < timedelta(seconds=1) else f"{span.total_seconds():.1f}s"
    )


def progress(shown: Progress) -> dict[str, Any]:
    """The newest progress of the current run."""
    return {"current": shown.current, "total": shown.total, "message": shown.message, "at": shown.at}
