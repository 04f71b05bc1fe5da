"""From a request to a row: every field is checked before the store is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from forge_jobs import limits
from forge_jobs.clock import duration_us, to_us
from forge_jobs.ids import JobId, new_id, new_ids, parse_id
from forge_jobs.names import check_name
from forge_jobs.payload import encode_payload
from forge_jobs.storage.error import InvalidInput, InvalidKey
from forge_jobs.storage.types.job import EnqueueRequest, JobChange, NewJob, OnConflict
from forge_jobs.storage.types.unset import UNSET

DEFAULT_MAX_ATTEMPTS: Final = 5
LONGEST_S: Final = 10**12
LAST_INSTANT_US: Final = to_us(datetime(limits.RUN_AT_YEARS[1], 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
_POLICIES: Final = frozenset(OnConflict)


def check_request(
    request: EnqueueRequest,
    *,
    parent_id: JobId | None = None,
    payload_max: int = limits.PAYLOAD_MAX_BYTES,
    job_id: JobId | None = None,
) -> NewJob:
    """The stored form of `request`, with an id if it brought none.

    Raises:
        InvalidInput: or a subclass, naming field, value and rule.
    """
    if request.queue is None:
        raise InvalidInput(
            f"the request for kind {request.kind!r} names no queue; give one, or enqueue through a router",
            field="queue",
            reason="missing_field",
        )
    queue = check_name(request.queue, "queue")
    kind = check_name(request.kind, "kind")
    text = encode_payload(request.payload, payload_max)
    priority = _whole(request.priority, "priority", limits.PRIORITY)
    attempts = request.max_attempts
    attempts = DEFAULT_MAX_ATTEMPTS if attempts is None else _whole(attempts, "max_attempts", limits.MAX_ATTEMPTS)
    if job_id is None:
        job_id = new_id() if request.id is None else parse_id(request.id)
    if _is_plain(request):  # nearly every request: nothing else was given
        return NewJob(job_id, queue, kind, text, priority, attempts, parent_id=parent_id, plain=True)
    return _with_options(request, NewJob(job_id, queue, kind, text, priority, attempts, parent_id=parent_id))


def check_requests(
    requests: Sequence[EnqueueRequest],
    *,
    parent_id: JobId | None = None,
    payload_max: int = limits.PAYLOAD_MAX_BYTES,
) -> list[NewJob]:
    """The stored forms of a bulk, ids minted in request order.

    Raises:
        InvalidInput: the first bad request, by its position; or the bulk is over 10 000 requests or 64 MiB.
    """
    if len(requests) > limits.BULK_REQUESTS:
        raise InvalidInput(
            f"{len(requests)} requests in one bulk; the limit is {limits.BULK_REQUESTS}. Send several bulks",
            field="requests",
            reason="out_of_range",
        )
    fresh = new_ids(len(requests))
    jobs: list[NewJob] = []
    for index, (request, job_id) in enumerate(zip(requests, fresh, strict=True)):
        try:
            own = job_id if request.id is None else parse_id(request.id)
            jobs.append(check_request(request, parent_id=parent_id, payload_max=payload_max, job_id=own))
        except InvalidInput as error:
            error.args = (f"request {index}: {error}",)
            raise
    if sum(len(job.payload) for job in jobs) > limits.BULK_PAYLOAD_BYTES:
        raise InvalidInput(
            f"the payloads of one bulk exceed {limits.BULK_PAYLOAD_BYTES} bytes; send several bulks",
            field="requests",
            reason="payload_too_large",
        )
    return jobs


def _is_plain(request: EnqueueRequest) -> bool:
    return (
        request.dedupe_key is None
        and request.run_at is None
        and request.delay is None
        and request.expires_at is None
        and request.ttl is None
        and request.unique_for is None
        and request.tags == ()
        and request.trace is None
        and request.on_conflict is OnConflict.SKIP
    )


def check_change(change: JobChange) -> dict[str, Any]:
    """What is given, by column, as it is stored.

    Raises:
        InvalidInput: nothing is given, or a value is not legal.
    """
    found: dict[str, Any] = {}
    if change.priority is not UNSET:
        found["priority"] = _whole(change.priority, "priority", limits.PRIORITY)
    if change.max_attempts is not UNSET:
        found["max_attempts"] = _whole(change.max_attempts, "max_attempts", limits.MAX_ATTEMPTS)
    if change.queue is not UNSET:
        found["queue"] = check_name(change.queue, "queue")
    if change.run_at is not UNSET:
        found["scheduled_at"] = _instant(change.run_at, "run_at")
    if change.expires_at is not UNSET:
        found["expires_at"] = _instant(change.expires_at, "expires_at")
    if not found:
        raise InvalidInput("nothing to change: give a field such as priority", field="body", reason="missing_field")
    if found.get("scheduled_at", 0) is None:
        raise InvalidInput("run_at must be an instant", field="run_at", reason="invalid_type")
    return found


def _with_options(request: EnqueueRequest, job: NewJob) -> NewJob:
    _not_both(request, "run_at", "delay")
    _not_both(request, "expires_at", "ttl")
    if not isinstance(request.on_conflict, str) or request.on_conflict not in _POLICIES:
        raise InvalidInput(
            f"on_conflict {request.on_conflict!r} must be one of {', '.join(sorted(_POLICIES))}",
            field="on_conflict",
            reason="invalid_value",
        )
    if request.unique_for is not None and request.dedupe_key is None:
        raise InvalidInput(
            "unique_for needs a dedupe_key to hold; give one", field="unique_for", reason="missing_field"
        )
    return msgspec.structs.replace(
        job,
        run_at_us=_instant(request.run_at, "run_at"),
        delay_us=_duration(request.delay, "delay", limits.DELAY_S) or 0,
        expires_at_us=_instant(request.expires_at, "expires_at"),
        ttl_us=_duration(request.ttl, "ttl", limits.DELAY_S),
        dedupe_key=_key(request.dedupe_key),
        unique_for_us=_duration(request.unique_for, "unique_for", limits.UNIQUE_FOR_S),
        tags=_tags(request.tags),
        trace=_trace(request.trace),
        on_conflict=OnConflict(request.on_conflict).value,
    )


def _whole(value: object, field: str, bounds: tuple[int, int]) -> int:
    if type(value) is not int:
        raise InvalidInput(
            f"{field} {value!r} is a {type(value).__name__}, not a whole number", field=field, reason="invalid_type"
        )
    if not bounds[0] <= value <= bounds[1]:
        raise InvalidInput(
            f"{field} {value if abs(value) < 10**30 else '(a huge number)'} is not within {bounds[0]} … {bounds[1]}",
            field=field,
            reason="out_of_range",
        )
    return value


def _duration(value: object, field: str, bounds: tuple[float, float]) -> int | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif type(value) is int:
        seconds = float(min(max(value, -LONGEST_S), LONGEST_S))
    elif type(value) is float:
        seconds = value
    else:
        raise InvalidInput(
            f"{field} {value!r} is a {type(value).__name__}; give seconds or a timedelta",
            field=field,
            reason="invalid_type",
        )
    if not math.isfinite(seconds) or not bounds[0] <= seconds <= bounds[1]:
        raise InvalidInput(
            f"{field} of {seconds:g} seconds is not within {bounds[0]} … {bounds[1]} seconds",
            field=field,
            reason="out_of_range",
        )
    return duration_us(value if isinstance(value, timedelta) else seconds)


def _instant(value: object, field: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidInput(
            f"{field} {value!r} is a {type(value).__name__}; give an aware datetime", field=field, reason="invalid_type"
        )
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidInput(
            f"{field} {value.isoformat()} has no time zone; give an aware datetime, e.g. with tzinfo=UTC",
            field=field,
            reason="naive_time",
        )
    low, high = limits.RUN_AT_YEARS
    us = to_us(value)
    if not 0 <= us <= LAST_INSTANT_US:
        raise InvalidInput(
            f"{field} {value.isoformat()} is not within {low} … {high}", field=field, reason="out_of_range"
        )
    return us


def _key(value: object) -> str | None:
    if value is None:
        return None
    if type(value) is str and 1 <= len(value) <= limits.DEDUPE_KEY_LENGTH and value.isprintable():
        return value
    shown = repr(value) if len(repr(value)) < 300 else repr(value)[:100] + "…"
    raise InvalidKey(
        f"dedupe_key {shown} must be 1 to {limits.DEDUPE_KEY_LENGTH} printable characters",
        field="dedupe_key",
        reason="invalid_key" if isinstance(value, str) else "invalid_type",
    )


def _tags(value: object) -> str | None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidInput(f"tags {value!r} must be a list of text", field="tags", reason="invalid_type")
    if not value:
        return None
    if len(value) > limits.TAGS:
        raise InvalidInput(f"{len(value)} tags; the limit is {limits.TAGS}", field="tags", reason="out_of_range")
    for tag in value:
        if type(tag) is not str or not 1 <= len(tag) <= limits.TAG_LENGTH or not tag.isprintable():
            raise InvalidInput(
                f"tag {tag!r} must be 1 to {limits.TAG_LENGTH} printable characters", field="tags", reason="invalid_tag"
            )
    return msgspec.json.encode(list(value)).decode()


def _trace(value: object) -> str | None:
    if value is None:
        return None
    legal = isinstance(value, Mapping) and all(type(k) is str and type(v) is str for k, v in value.items())
    if not legal:
        raise InvalidInput("trace must map text to text", field="trace", reason="invalid_type")
    text = encode_payload(dict(value))  # type: ignore[call-overload]
    if len(text) > limits.TRACE_BYTES:
        raise InvalidInput(f"trace is over {limits.TRACE_BYTES} bytes", field="trace", reason="out_of_range")
    return text


def _not_both(request: EnqueueRequest, one: str, other: str) -> None:
    given: tuple[Any, Any] = (getattr(request, one), getattr(request, other))
    if None not in given:
        raise InvalidInput(f"give {one} or {other}, not both", field=other, reason="conflicting_fields")


def check_pace(action: str, per_s: float | None) -> None:
    """Whether an act may be spread over time like this.

    Raises:
        InvalidInput: it may not.
    """
    if per_s is None:
        return
    if action != "retry":
        raise InvalidInput(f"only a retry is spread over time, not {action}", field="per_s", reason="invalid_value")
    least, most = limits.RETRY_PER_S
    if type(per_s) not in (int, float) or not least <= per_s <= most:
        raise InvalidInput(f"per_s {per_s!r} is not within {least:g} … {most:g}", field="per_s", reason="out_of_range")
