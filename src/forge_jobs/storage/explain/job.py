"""Why a job does not run at the moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from forge_jobs.clock import duration_us, from_us
from forge_jobs.ids import JobId
from forge_jobs.storage.explain.facts import JobFacts, Place, QueueFacts, Worker
from forge_jobs.storage.explain.words import at, brief, count, span_us
from forge_jobs.storage.explain.workers import PASSING, Sieved, called
from forge_jobs.storage.types.blocker import Blocker, BlockerCode, most_final_first
from forge_jobs.storage.types.job import DeadReason, JobStatus
from forge_jobs.text import span

SILENT_PART: Final = 3
"""An owner counts as silent from this part of the stale threshold on: two heartbeats are missing then."""


def unknown_job(job_id: str) -> list[Blocker]:
    """What there is to say of an id that no row has."""
    return [
        Blocker(
            code=BlockerCode.UNKNOWN_ID,
            text=f"there is no job {job_id}: it never was, it was deleted, or retention removed it.",
            remedy="forge-jobs jobs list shows those that are there, forge-jobs queues list what retention keeps",
        )
    ]


def settled_story(job: JobFacts, queue: QueueFacts) -> list[Blocker] | None:
    """What there is to say of a job that does not wait for its time or a worker; None of one that does."""
    if job.damage is not None:
        return [_unreadable(job)]
    match job.status:
        case JobStatus.DONE | JobStatus.DEAD:
            return [_finished(job)]
        case JobStatus.IN_PROGRESS:
            return most_final_first(_running(job, queue))
        case JobStatus.PENDING | JobStatus.FAILED if job.expires_us is not None and job.expires_us <= queue.now_us:
            return [_expired(job, queue), *_no_reaper(queue, "so nobody sweeps it up")]
        case JobStatus.PENDING | JobStatus.FAILED:
            return None
        case _:
            return [_unreadable(job)]


def is_due(job: JobFacts, queue: QueueFacts) -> bool:
    """Whether a job that waits has reached its time."""
    return job.scheduled_us <= queue.now_us


def waiting_story(job: JobFacts, queue: QueueFacts, sieved: Sieved, place: Place | None) -> list[Blocker]:
    """What there is to say of a job that waits. `place` is that of one that is due and could be claimed."""
    found = list(sieved.blockers)
    if not is_due(job, queue):
        found = [one for one in found if one.code is not BlockerCode.RATE_LIMITED]  # of this moment, not of its own
        found.append(_not_due(job, queue))
    elif place is not None:
        found += _in_line(job, queue, sieved.paying, place)
    if all(one.code in PASSING for one in found):
        found.append(_ready(job, sieved.paying))
    return most_final_first(found)


def able(job: JobFacts, workers: Sequence[Worker]) -> list[Worker]:
    """Those workers that have room for the job at this moment."""
    return [
        worker for worker in workers if worker.idle > 0 and not (runs_alone(job, worker) and worker.busy_in_all > 0)
    ]


def runs_alone(job: JobFacts, worker: Worker) -> bool:
    """Whether the worker runs the job with nothing beside it."""
    return job.alone or job.kind in worker.info.alone_kinds


def _in_line(job: JobFacts, queue: QueueFacts, paying: Sequence[Worker], place: Place) -> list[Blocker]:
    found: list[Blocker] = []
    if not any(worker.idle > 0 for worker in paying):
        found.append(slots_busy(queue, paying))
    elif not able(job, paying):
        found.append(_alone(job, paying))
    if not place.first and (place.ahead or not found):
        found.append(_behind(place))
    return found


def _unreadable(job: JobFacts) -> Blocker:
    return Blocker(
        code=BlockerCode.UNREADABLE,
        text=f"this version cannot read the job: {job.damage or f'it does not know the status {job.status!r}'}.",
        remedy="upgrade this program to the version that wrote it, or delete the job and add it anew",
    )


def _finished(job: JobFacts) -> Blocker:
    when = "" if job.completed_us is None else f" at {at(job.completed_us)}"
    since = None if job.completed_us is None else from_us(job.completed_us)
    if job.status == JobStatus.DONE:
        return Blocker(
            code=BlockerCode.FINISHED,
            text=f"it is done{when}, with attempt {job.attempts}.",
            since=since,
            remedy="nothing; to run it once more, add it as a new job",
        )
    said = f": {brief(job.last_error)}" if job.last_error else ""
    reason = f"{job.dead_reason} ({_REASONS[job.dead_reason]})" if job.dead_reason in _REASONS else job.dead_reason
    return Blocker(
        code=BlockerCode.FINISHED,
        text=f"it is dead{when}, {reason}, after {count(job.attempts, 'attempt')}{said}.",
        since=since,
        remedy=_retry_remedy(job.id, job.holder, job.dedupe_key),
    )


_REASONS: Final[dict[str | None, str]] = {
    DeadReason.EXHAUSTED: "its attempts are spent",
    DeadReason.REJECTED: "its handler said that retrying cannot help",
    DeadReason.CANCELLED: "somebody cancelled it",
    DeadReason.CRASHED: "it took its workers down too often",
    DeadReason.EXPIRED: "it was not started in time",
    DeadReason.SUPERSEDED: "a newer job with its key replaced it",
}


def _retry_remedy(job_id: JobId, holder: JobId | None, key: str | None) -> str:
    if holder is None:
        return f"forge-jobs jobs retry {job_id}"
    return f"a retry would be refused: job {holder} holds the key {key!r}; wait for that one, or cancel it"


def _expired(job: JobFacts, queue: QueueFacts) -> Blocker:
    assert job.expires_us is not None
    return Blocker(
        code=BlockerCode.EXPIRED,
        text=f"it was to be started by {at(job.expires_us)}, {span_us(queue.now_us - job.expires_us)} ago; it is not "
        "started any more, and ends as dead with the next sweep.",
        since=from_us(job.expires_us),
        remedy="nothing; add it again, without or with a longer ttl",
    )


def _running(job: JobFacts, queue: QueueFacts) -> list[Blocker]:
    found: list[Blocker] = []
    worker = job.process_id if job.owner is None else job.owner.info.label or job.owner.info.host_id
    since = None if job.started_us is None else from_us(job.started_us)
    silent = None if job.silent_us is None else timedelta(microseconds=job.silent_us)
    if job.cancel_us is not None:
        found.append(_cancel_requested(job))
    if silent is None or silent >= queue.stale_after / SILENT_PART:
        found += _stale(job, queue, str(worker), silent)
    elif _not_begun(job):
        found.append(
            Blocker(
                code=BlockerCode.RUNNING_NO_SLOT,
                text=f"{worker} claimed it {span_us(queue.now_us - (job.started_us or 0))} ago, and has not begun it.",
                since=since,
                remedy="nothing: what a worker does not begin is given back within two heartbeats",
            )
        )
    else:
        found.append(
            Blocker(
                code=BlockerCode.RUNNING,
                text=f"{worker} has been running it for {span_us(queue.now_us - (job.started_us or 0))}, attempt "
                f"{job.attempts} of {job.max_attempts}; its last heartbeat is {span(silent)} old.",
                since=since,
                remedy=f"nothing; to stop it: forge-jobs jobs cancel {job.id}",
            )
        )
    return found


def _not_begun(job: JobFacts) -> bool:
    """Its owner's newest heartbeat came after the claim, and does not name the job."""
    if job.owner is None or job.started_us is None:
        return False
    return duration_us(job.owner.heartbeat_at - from_us(job.started_us)) > 0 and (
        job.id not in job.owner.info.running.values()
    )


def _cancel_requested(job: JobFacts) -> Blocker:
    assert job.cancel_us is not None
    seen = job.heartbeat_us is not None and job.heartbeat_us > job.cancel_us
    by = f"by {job.canceller} " if job.canceller else ""
    heard = "has heard of it" if seen else "has not heard of it yet"
    return Blocker(
        code=BlockerCode.CANCEL_REQUESTED,
        text=f"its cancel was asked for {by}at {at(job.cancel_us)}; its worker {heard}.",
        since=from_us(job.cancel_us),
        remedy="nothing: a handler that ignores it is ended after its grace"
        if seen
        else "nothing: workers hear of it with their next heartbeat",
    )


def _stale(job: JobFacts, queue: QueueFacts, worker: str, silent: timedelta | None) -> list[Blocker]:
    how = "was gone after a restart of its host" if silent is None else f"has been silent for {span(silent)}"
    since = None if job.heartbeat_us is None else from_us(job.heartbeat_us)
    left = timedelta(0) if silent is None else max(queue.stale_after - silent, timedelta(0))
    dead = _no_reaper(queue, "so nobody takes it back")
    if dead:
        then, remedy = "it stays where it is", "start a worker"
    elif left:
        then, remedy = f"unless it is heard of, the job is taken back in {span(left)}", "nothing, it may come back"
    else:
        then, remedy = "the job is taken back within seconds", "nothing; the run counts as a crash"
    stale = Blocker(
        code=BlockerCode.RUNNING_STALE,
        text=f"its worker {worker} {how}; {then}.",
        since=since,
        until=from_us(queue.now_us) + left if left else None,
        remedy=remedy,
    )
    return [stale, *dead]


def _no_reaper(queue: QueueFacts, so: str) -> list[Blocker]:
    """Said where the reaper is what a job waits for, and none makes progress."""
    if queue.reapers:
        return []
    if queue.live_processes:
        who = f"none of the {count(queue.live_processes, 'live worker')} could look for stale and expired jobs lately"
        remedy = "see the workers' logs for loop_fault"
    else:
        who, remedy = "no worker is alive", "start a worker"
    return [Blocker(code=BlockerCode.LOOP_DEAD, text=f"{who}, {so}.", remedy=remedy)]


def _not_due(job: JobFacts, queue: QueueFacts) -> Blocker:
    until = from_us(job.scheduled_us)
    wait = span_us(job.scheduled_us - queue.now_us)
    now = f"to run it now: forge-jobs jobs {'retry' if job.status == JobStatus.FAILED else 'run-now'} {job.id}"
    if job.status == JobStatus.FAILED:
        crash = f" (crashed {count(job.crashes, 'time')})" if job.crashes else ""
        said = f": {brief(job.last_error)}" if job.last_error else ""
        return Blocker(
            code=BlockerCode.RETRY_WAIT,
            text=f"attempt {job.attempts} of {job.max_attempts} failed{crash}; the next is due in {wait}{said}.",
            until=until,
            remedy=now,
        )
    if job.put_off:
        return Blocker(
            code=BlockerCode.RATE_LIMITED,
            text=f"the rate limit that its payload names had no tokens for it; its turn comes in {wait}.",
            until=until,
            remedy="wait, or raise the limit with forge-jobs limits set",
        )
    if job.throttles:
        return Blocker(
            code=BlockerCode.THROTTLE_WAIT,
            text=f"its upstream asked to come back later, {count(job.throttles, 'time')} in a row; due in {wait}.",
            until=until,
            remedy=f"wait, or {now}",
        )
    return Blocker(
        code=BlockerCode.SCHEDULED, text=f"it is due in {wait}, at {at(job.scheduled_us)}.", until=until, remedy=now
    )


def slots_busy(queue: QueueFacts, paying: Sequence[Worker]) -> Blocker:
    slots, busy = sum(worker.slots for worker in paying), sum(worker.busy for worker in paying)
    oldest = ""
    if queue.oldest is not None:
        oldest = f"; job {queue.oldest.job_id} has been running for {span_us(queue.now_us - queue.oldest.started_us)}"
    median = "" if queue.median_run is None else f"; the median run took {span(queue.median_run)} in the last hour"
    return Blocker(
        code=BlockerCode.SLOTS_BUSY,
        text=f"{busy} of {count(slots, 'slot')} {'is' if slots == 1 else 'are'} busy{oldest}{median}.",
        remedy=f"wait, start another worker, or give them more slots (--slots, or queues set {queue.settings.name} "
        "--max-workers)",
    )


def _alone(job: JobFacts, paying: Sequence[Worker]) -> Blocker:
    why = "its next crash would be its last" if job.alone else f"a crash of kind {job.kind} is its last"
    busy = min(worker.busy_in_all for worker in paying)
    return Blocker(
        code=BlockerCode.RUNS_ALONE,
        text=f"it runs with nothing beside it, since {why}; {called(paying)} must "
        f"become idle first ({count(busy, 'job')} to go).",
        remedy="wait: a worker claims nothing else meanwhile, for a minute at a time",
    )


def _behind(place: Place) -> Blocker:
    least = "at least " if place.or_more else ""
    verb = "stands" if place.ahead == 1 else "stand"
    return Blocker(
        code=BlockerCode.BEHIND_OTHERS,
        text=f"{least}{count(place.ahead, 'ready job')} {verb} before it, by priority or time.",
        remedy="wait, add workers or slots, or give such jobs a better (lower) priority when they are enqueued",
    )


def _ready(job: JobFacts, paying: Sequence[Worker]) -> Blocker:
    wait = max((worker.info.poll_ms for worker in paying), default=0.0)
    return Blocker(
        code=BlockerCode.READY,
        text=f"nothing stands in its way: a worker starts it within {span(timedelta(milliseconds=wait))}.",
    )
