"""Reading, in one snapshot and writing nothing, why a job, a queue or a schedule waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from forge_jobs.clock import from_us
from forge_jobs.ids import JobId
from forge_jobs.payload import decode_payload
from forge_jobs.storage.explain.facts import JobFacts
from forge_jobs.storage.explain.job import is_due, settled_story, unknown_job, waiting_story
from forge_jobs.storage.explain.queue import Waiting, queue_story, unknown_queue
from forge_jobs.storage.explain.schedule import ScheduleFacts, schedule_story, unknown_schedule
from forge_jobs.storage.explain.workers import sieve
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Row, Tx
from forge_jobs.storage.sql.facts import Fleet, loop_moves, queue_facts, read_fleet, read_queue
from forge_jobs.storage.sql.place import place_of
from forge_jobs.storage.types.blocker import Blocker, most_final_first
from forge_jobs.storage.types.event import EventType
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.storage.types.queue import QueueSettings
from forge_jobs.storage.types.schedule import Schedule, Tick

EXPLAIN_JOB = statement("explain_job")
CANCELLER_OF_JOB = statement("canceller_of_job")
LAST_EVENT_OF_JOB = statement("last_event_of_job")
KEY_HOLDER = statement("key_holder")
KINDS_DUE = statement("kinds_due")
NEXT_DUE = statement("next_due")
COUNT_WAITING = statement("count_waiting")
LIST_LEASES = statement("list_leases")

DUE_LIMIT: Final = 1_000
"""Jobs of which the kinds are looked at, where no index lists the kinds."""


def explain_job(tx: Tx, job_id: JobId, stale_after: timedelta) -> list[Blocker]:
    """See `JobStore.explain`."""
    row = tx.row(EXPLAIN_JOB, {"id": job_id})
    if row is None:
        return unknown_job(job_id)
    fleet = read_fleet(tx, stale_after)
    job = _job_facts(tx, row, fleet)
    settings = read_queue(tx, job.queue) or QueueSettings(name=job.queue)
    queue = queue_facts(tx, settings, fleet, stale_after, kind=job.kind)
    story = settled_story(job, queue)
    if story is not None:
        return most_final_first(story)
    sieved = sieve(queue, job.kind)
    in_line = sieved.is_clear and is_due(job, queue)
    return waiting_story(job, queue, sieved, place_of(tx, job, queue, sieved.paying) if in_line else None)


def explain_queue(tx: Tx, name: str, stale_after: timedelta) -> list[Blocker]:
    """See `QueueStore.explain`."""
    settings = read_queue(tx, name)
    if settings is None:
        return unknown_queue(name)
    facts = queue_facts(tx, settings, read_fleet(tx, stale_after), stale_after)
    (next_due,) = tx.rows(NEXT_DUE, {"queues": f'["{name}"]'})[0]
    return queue_story(
        facts,
        Waiting(
            kinds=[row[0] for row in tx.rows(KINDS_DUE, {"queue": name, "limit": DUE_LIMIT})],
            next_due_us=next_due,
            count=None if settings.max_pending is None else tx.rows(COUNT_WAITING, {"queue": name})[0][0],
        ),
    )


def explain_schedule(
    tx: Tx, name: str, stale_after: timedelta, schedule: Schedule | None, tick: Tick | None
) -> list[Blocker]:
    """See `ScheduleStore.explain`; the schedule and its newest tick are read by the caller, in this transaction."""
    if schedule is None:
        return unknown_schedule(name)
    fleet = read_fleet(tx, stale_after)
    holder = next((row[1] for row in tx.rows(LIST_LEASES) if row[0] == "cron"), None)
    leader = fleet.of(holder)
    return schedule_story(
        ScheduleFacts(
            schedule=schedule,
            now=from_us(tx.now_us),
            last_tick=tick,
            leader=(leader.info.label or holder) if leader is not None else holder,
            leader_moves=leader is None or loop_moves(leader.info, "cron", tx.now_us, stale_after),
            live_processes=len(fleet.live),
        )
    )


def _job_facts(tx: Tx, row: Row, fleet: Fleet) -> JobFacts:
    columns, payload = row[:23], row[23]
    job_id, queue, kind, status, priority, attempts, most, crashes, throttles, alone, *rest = columns
    enqueued, scheduled, expires, started, completed, heartbeat, silent, process, host, key, reason, error, cancel = (
        rest
    )
    waits = status in (JobStatus.PENDING, JobStatus.FAILED)
    last = tx.row(LAST_EVENT_OF_JOB, {"id": job_id}) if waits and scheduled > tx.now_us else None
    holder = tx.row(KEY_HOLDER, {"key": key, "id": job_id}) if key is not None and status == JobStatus.DEAD else None
    canceller = None if cancel is None else tx.row(CANCELLER_OF_JOB, {"id": job_id, "at": cancel})
    return JobFacts(
        id=JobId(job_id),
        queue=queue,
        kind=kind,
        status=status,
        priority=priority,
        attempts=attempts,
        max_attempts=most,
        crashes=crashes,
        throttles=throttles,
        alone=bool(alone),
        enqueued_us=enqueued,
        scheduled_us=scheduled,
        expires_us=expires,
        started_us=started,
        completed_us=completed,
        heartbeat_us=heartbeat,
        silent_us=silent,
        process_id=process,
        host_id=host,
        dedupe_key=key,
        dead_reason=reason,
        last_error=error,
        cancel_us=cancel,
        damage=_damage(payload),
        owner=fleet.of(host) if status == JobStatus.IN_PROGRESS else None,
        canceller=None if canceller is None else canceller[0],
        holder=None if holder is None else JobId(holder[0]),
        put_off=last is not None and tuple(last) == (EventType.RELEASED, "rate_limited"),
    )


def _damage(payload: str) -> str | None:
    try:
        decode_payload(payload)
    except Exception as error:  # whatever is wrong with it
        return f"its payload of {len(payload)} characters is damaged ({type(error).__name__})"
    return None
