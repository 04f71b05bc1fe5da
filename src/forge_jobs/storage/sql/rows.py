"""From rows to types, and back."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from forge_jobs.clock import from_us, to_us
from forge_jobs.ids import JobId
from forge_jobs.limits import DEDUPE_KEY_LENGTH
from forge_jobs.names import check_name
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.lifecycle import JobState
from forge_jobs.storage.sql.driver import Row
from forge_jobs.storage.types.event import Actor, AuditRow, JobEvent
from forge_jobs.storage.types.job import ErrorEntry, JobFilter, JobRow, JobStatus, Progress
from forge_jobs.storage.types.queue import BackoffPolicy, QueueSettings
from forge_jobs.text import clean

PATTERN_LENGTH: Final = 1_000
_ASCII_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

_encode = msgspec.json.Encoder().encode


def to_json(value: object) -> str:
    """A parameter that carries a list or a mapping."""
    return _encode(value).decode()


def instant(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def job_state(row: Row) -> JobState:
    """The state that decisions read, from the columns `status … alone` of `lock_job`."""
    status, attempts, max_attempts, crashes, throttles, fence, cancel_requested, alone = row
    return JobState(
        status=JobStatus(status),
        attempts=attempts,
        max_attempts=max_attempts,
        crashes=crashes,
        throttles=throttles,
        fence=fence,
        cancel_requested=bool(cancel_requested),
        alone=bool(alone),
    )


def job_row(row: Row) -> JobRow:
    """A row of `list_jobs`, or the first columns of `get_job`."""
    return JobRow(
        id=JobId(row[0]),
        queue=row[1],
        kind=row[2],
        status=row[3],
        priority=row[4],
        attempts=row[5],
        max_attempts=row[6],
        crashes=row[7],
        throttles=row[8],
        fence=row[9],
        enqueued_at=from_us(row[10]),
        scheduled_at=from_us(row[11]),
        expires_at=instant(row[12]),
        started_at=instant(row[13]),
        completed_at=instant(row[14]),
        heartbeat_at=instant(row[15]),
        process_id=row[16],
        host_id=row[17],
        dedupe_key=row[18],
        dead_reason=row[19],
        last_error=row[20],
        cancel_requested_at=instant(row[21]),
        tags=tuple(json.loads(row[22])) if row[22] else (),
        parent_id=row[23],
        payload_text=row[24],
        worker=row[25] or row[17],
        schedule=json.loads(row[26]).get("schedule") if row[26] else None,
    )


def error_entry(row: Row) -> ErrorEntry:
    at, attempt, fence, process, message, kind = row
    return ErrorEntry(
        at=from_us(at), attempt=attempt, fence=fence, process=process, message=message, kind_of_error=kind
    )


def progress(row: Row) -> Progress:
    current, total, message, at = row
    return Progress(current=current, total=total, message=message, at=from_us(at))


def queue_settings(row: Row, pauses: Iterable[Row]) -> QueueSettings:
    """A row of `get_queue` with the queue's rows of `list_pauses`."""
    pauses = list(pauses)
    everywhere = next((p for p in pauses if p[1] == ""), None)
    return QueueSettings(
        name=row[0],
        max_workers=row[1],
        retain_done_days=row[2],
        retain_dead_days=row[3],
        backoff=BackoffPolicy(enabled=bool(row[4]), base_s=row[5], cap_s=row[6], jitter=row[7]),
        cool_down=bool(row[8]),
        max_pending=row[9],
        throttle_attempts=row[10],
        throttled_until=instant(row[11]),
        paused=everywhere is not None,
        pause_signal=any(p[2] for p in pauses),
        paused_at=instant(everywhere[3]) if everywhere else None,
        paused_by=everywhere[4] if everywhere else None,
        paused_processes=tuple(p[1] for p in pauses if p[1]),
        updated_at=instant(row[12]),
        updated_by=row[13],
    )


def job_event(row: Row) -> JobEvent:
    return JobEvent(*row)


def audit_row(row: Row) -> AuditRow:
    at, actor, role, address, surface, action, target, count, outcome, request_id, before, after = row
    return AuditRow(
        at=from_us(at),
        actor=Actor(name=actor, role=role, surface=surface, address=address, request_id=request_id),
        action=action,
        target=target,
        count=count,
        outcome=outcome,
        before=json.loads(before) if before else None,
        after=json.loads(after) if after else None,
    )


def filter_params(chosen: JobFilter) -> dict[str, Any]:
    """The parameters of a statement that filters jobs."""

    def listed(values: tuple[str, ...] | None) -> str | None:
        return None if values is None else json.dumps(values)

    return {
        "ids": listed(chosen.ids),
        "queues": listed(chosen.queues),
        "kinds": listed(chosen.kinds),
        "statuses": listed(chosen.statuses),
        "dead_reasons": listed(chosen.dead_reasons),
        "key": chosen.key and clean(chosen.key, 4 * DEDUPE_KEY_LENGTH),
        "tag": chosen.tag and clean(chosen.tag, 4 * DEDUPE_KEY_LENGTH),
        "search": literal_pattern(chosen.search, "search", stored_as_json=True),
        "error": literal_pattern(chosen.error, "error"),
        "since": _bound(chosen.since, "since"),
        "until": _bound(chosen.until, "until"),
        "process": chosen.process and clean(chosen.process, 4 * DEDUPE_KEY_LENGTH),
        "parent": chosen.parent and clean(chosen.parent, 4 * DEDUPE_KEY_LENGTH),
        "schedule": None
        if chosen.schedule is None
        else to_json({"schedule": check_name(chosen.schedule, "schedule")})[1:-1],
    }


def literal_pattern(text: str | None, field: str, *, stored_as_json: bool = False) -> str | None:
    """A LIKE pattern that finds `text` literally, anywhere, in what `lower` made of a column: letters of ASCII match in
    either case, others only in their own. Use with ESCAPE of a backslash.

    Payloads are kept as ASCII-escaped JSON, so other characters are searched for in that form.

    Raises:
        InvalidInput: it is longer than a pattern may be, or not text that can be stored.
    """
    if text is None:
        return None
    if len(text) > PATTERN_LENGTH or clean(text, 8 * PATTERN_LENGTH) != text:
        raise InvalidInput(
            f"{field} must be at most {PATTERN_LENGTH} characters of text, without NUL or lone surrogates", field=field
        )
    if stored_as_json and not text.isascii():
        text = json.dumps(text)[1:-1]
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped.translate(_ASCII_LOWER)}%"


def _bound(at: datetime | None, field: str) -> int | None:
    if at is None:
        return None
    if at.tzinfo is None:
        raise InvalidInput(f"{field} {at.isoformat()} has no time zone", field=field, reason="naive_time")
    return to_us(at)


def audit_params(
    actor: Actor, action: str, target: str, *, count: int = 1, outcome: str, before: object = None, after: object = None
) -> Mapping[str, Any]:
    """The parameters of `insert_audit`."""
    return {
        "actor": actor.name,
        "role": actor.role,
        "address": actor.address,
        "surface": actor.surface,
        "action": action,
        "target": target,
        "count": count,
        "outcome": outcome,
        "request_id": actor.request_id,
        "before": None if before is None else to_json(before),
        "after": None if after is None else to_json(after),
    }
