"""Requests of follow-up jobs on their way from a child to its worker.

They are checked in the child, where they were made, and travel in their stored form: what JSON cannot carry exactly is
refused there and not changed on the way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import msgspec

from forge_jobs import limits
from forge_jobs.clock import from_us
from forge_jobs.ids import JobId
from forge_jobs.payload import decode_payload
from forge_jobs.storage.request import check_request, check_requests
from forge_jobs.storage.types.job import (
    Deduped,
    Enqueued,
    EnqueueOutcome,
    EnqueueRequest,
    JobStatus,
    NewJob,
    OnConflict,
)

ANY_QUEUE: Final = "any"
"""Stands in for a queue that the worker's router will name."""
_new_jobs: Final = msgspec.json.Decoder(list[NewJob])


def pack_requests(requests: Sequence[EnqueueRequest], *, bulk: bool) -> list[Any]:
    """The checked requests as values, each with its id, so that a repeat is the same job.

    Raises:
        InvalidInput: as the enqueue would.
    """
    named = [replace(one, queue=ANY_QUEUE) if one.queue is None else one for one in requests]
    limit = limits.PAYLOAD_CEILING_BYTES
    jobs = (
        check_requests(named, payload_max=limit) if bulk else [check_request(one, payload_max=limit) for one in named]
    )
    left_open = [[one.queue is None, one.max_attempts is None] for one in requests]
    return [msgspec.json.encode(jobs).decode(), left_open]


def unpack_requests(stored: str, left_open: Sequence[Sequence[bool]]) -> list[EnqueueRequest]:
    """The requests as they were made."""
    return [
        _request(job, no_queue=no_queue, no_attempts=no_attempts)
        for job, (no_queue, no_attempts) in zip(_new_jobs.decode(stored), left_open, strict=True)
    ]


def _request(job: NewJob, *, no_queue: bool, no_attempts: bool) -> EnqueueRequest:
    return EnqueueRequest(
        job.kind,
        decode_payload(job.payload),
        queue=None if no_queue else job.queue,
        priority=job.priority,
        max_attempts=None if no_attempts else job.max_attempts,
        dedupe_key=job.dedupe_key,
        on_conflict=OnConflict(job.on_conflict),
        unique_for=_duration(job.unique_for_us),
        run_at=None if job.run_at_us is None else from_us(job.run_at_us),
        delay=_duration(job.delay_us or None),
        expires_at=None if job.expires_at_us is None else from_us(job.expires_at_us),
        ttl=_duration(job.ttl_us),
        id=job.id,
        tags=json.loads(job.tags) if job.tags else (),
        trace=json.loads(job.trace) if job.trace else None,
    )


def _duration(us: int | None) -> timedelta | None:
    return None if us is None else timedelta(microseconds=us)


def pack_outcome(outcome: EnqueueOutcome) -> list[Any]:
    """An enqueue's outcome as values."""
    match outcome:
        case Enqueued(id=job_id, repeated=repeated):
            return ["enqueued", job_id, repeated]
        case Deduped(id=job_id, status=status):
            return ["deduped", job_id, status.value]


def unpack_outcome(values: Sequence[Any]) -> EnqueueOutcome:
    word, job_id, more = values
    return Enqueued(JobId(job_id), more) if word == "enqueued" else Deduped(JobId(job_id), JobStatus(more))
