"""Adding jobs: many callers, one transaction.

Nearly always the whole batch is new and goes in with one statement. When it does not (a repeated id), or a
job has a dedupe key, the batch is looked at row by row under the same lock.

Everything awaits its statements, so that the same code serves async connections of other people: see `at_once.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from forge_jobs import limits
from forge_jobs.ids import JobId
from forge_jobs.storage import lifecycle
from forge_jobs.storage.error import Busy, DedupeConflict, IdReused, QueueFull, StorageError
from forge_jobs.storage.sql.at_once import AtOnce, AwaitedTx, at_once
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.sql.write import LOCK_JOB, WRITE_JOB, as_event, as_row, locked
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.job import Deduped, Enqueued, EnqueueOutcome, JobStatus, NewJob, OnConflict

INSERT_JOB = statement("insert_job")
INSERT_PLAIN_JOB = statement("insert_plain_job")
HOLD_KEY = statement("hold_key")
FREE_HOLD = statement("free_hold")
JOBS_BY_IDS = statement("jobs_by_ids")
HOLDERS_OF_KEYS = statement("holders_of_keys")
HOLDS_OF_KEYS = statement("holds_of_keys")
ENSURE_QUEUE = statement("ensure_queue")
QUEUE_BOUNDS = statement("queue_bounds")
COUNT_WAITING = statement("count_waiting")

Answer: TypeAlias = EnqueueOutcome | StorageError | None
"""None: not tried, as another transaction is about this job's dedupe key; ask again for it alone."""
RACES: Final = 4
"""How often a batch is looked at anew when others added the same ids meanwhile."""
KNOWN_FOR_US: Final = 1_000_000
"""How old what is known of a queue may be: its bound, and the count behind it."""


@dataclass(slots=True)
class Batch:
    """What one transaction of enqueues came to: an answer per job, the jobs that are new, and other events."""

    answers: list[Answer]
    added: list[NewJob]
    now_us: int
    events: list[JobEvent] = field(default_factory=list)


@dataclass(slots=True)
class KnownQueues:
    """What is known of the bounds of queues, at most a second old, to spare every enqueue the look. Written on the
    driver's thread; `forget` may come from another."""

    bounds: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """When a queue was looked at, and its `max_pending`."""
    counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    """When the waiting jobs of a bounded queue were counted, and how many they are since."""

    def forget(self) -> None:
        """Look again: settings were changed here, or a transaction failed."""
        self.bounds, self.counted = {}, {}

    async def look(self, tx: AwaitedTx, queues: Collection[str]) -> dict[str, int]:
        """The queues among these that have a bound."""
        known = self.bounds
        unknown = [queue for queue in queues if not _fresh(tx, known.get(queue))]
        if unknown:
            found: dict[str, int] = dict(await tx.rows(QUEUE_BOUNDS, {"queues": to_json(unknown)}))
            known.update({queue: (tx.now_us, found.get(queue)) for queue in unknown})
        return {queue: bound for queue in queues if (bound := known[queue][1]) is not None}

    async def room(self, tx: AwaitedTx, queue: str, max_pending: int) -> int:
        """How many more jobs the queue may take."""
        known = self.counted.get(queue)
        if known is None or not _fresh(tx, known):
            row = await tx.row(COUNT_WAITING, {"queue": queue})
            known = (tx.now_us, row[0] if row else 0)
        self.counted[queue] = known
        return max_pending - known[1]

    def added(self, queue: str) -> None:
        """One more job waits."""
        if queue in self.counted:
            at, count = self.counted[queue]
            self.counted[queue] = (at, count + 1)


def _fresh(tx: AwaitedTx, known: tuple[int, int | None] | None) -> bool:
    return known is not None and 0 <= tx.now_us - known[0] < KNOWN_FOR_US


class _NotAllNew(Exception):
    pass


class _Raced(Exception):
    """Another transaction added one of these ids after it was looked for."""


def insert_jobs(tx: Tx, jobs: Sequence[NewJob], known: KnownQueues, *, atomic: bool) -> Batch:
    """Add `jobs` in order. With `atomic` the first refusal is raised; else it is that job's answer."""
    return at_once(add_jobs(AtOnce(tx), jobs, known, atomic=atomic))


async def add_jobs(tx: AwaitedTx, jobs: Sequence[NewJob], known: KnownQueues, *, atomic: bool) -> Batch:
    """The same in any transaction."""
    bounds = await known.look(tx, {job.queue for job in jobs})
    if not bounds and all(job.plain for job in jobs) and await _insert_all(tx, jobs):
        return Batch([Enqueued(job.id) for job in jobs], list(jobs), tx.now_us)
    for _ in range(RACES):
        try:
            async with tx.savepoint():
                return await _insert_carefully(tx, jobs, known, bounds, atomic=atomic)
        except _Raced:
            continue
    raise Busy("others keep adding the same ids; nothing was added. Try again")


async def _insert_all(tx: AwaitedTx, jobs: Sequence[NewJob]) -> bool:
    """Insert all, or none if the id of one is taken."""
    if len(jobs) == 1:
        if await _insert(tx, jobs) == 0:
            return False
    else:
        try:
            async with tx.savepoint():
                if await _insert(tx, jobs) != len(jobs):
                    raise _NotAllNew
        except _NotAllNew:
            return False
    await _ensure_queues(tx, jobs)
    return True


async def _insert(tx: AwaitedTx, jobs: Sequence[NewJob]) -> int:
    now = tx.now_us
    if all(job.plain for job in jobs):
        rows = [
            (j.id, j.queue, j.kind, j.payload, j.priority, j.max_attempts, j.parent_id or "", now, now) for j in jobs
        ]
        return await tx.change_many(INSERT_PLAIN_JOB, rows)
    return await tx.change_many(INSERT_JOB, [(*msgspec.structs.astuple(job)[:-1], now) for job in jobs])


async def _ensure_queues(tx: AwaitedTx, jobs: Sequence[NewJob]) -> None:
    """Settings rows for queues that have none, so that the jobs of a queue nobody configured are seen."""
    if tx.makes_queues:
        return
    for queue in {job.queue for job in jobs}:
        await tx.change(ENSURE_QUEUE, {"name": queue})


async def _insert_carefully(
    tx: AwaitedTx, jobs: Sequence[NewJob], known_queues: KnownQueues, bounds: Mapping[str, int], *, atomic: bool
) -> Batch:
    batch = Batch([], [], tx.now_us)
    keys = sorted({job.dedupe_key for job in jobs if job.dedupe_key is not None})
    taken = await tx.reserve(keys, wait=atomic or len(jobs) == 1) if keys else ()
    known = {row[0]: row[1:] for row in await tx.rows(JOBS_BY_IDS, {"ids": to_json([job.id for job in jobs])})}
    holders: dict[str, tuple[str, str]] = {}
    if keys:
        params = {"keys": to_json(keys)}
        for key, holder, status in await tx.rows(HOLDS_OF_KEYS, params):
            holders[key] = (holder, status or JobStatus.DONE.value)
        for key, holder, status in await tx.rows(HOLDERS_OF_KEYS, params):
            holders[key] = (holder, status)
    unwritten: list[NewJob] = []
    for job in jobs:
        if job.dedupe_key in taken:
            batch.answers.append(None)
            continue
        answer = (
            _known(job, known)
            or await _held(tx, job, holders, unwritten, batch)
            or await _full(tx, job, known_queues, bounds)
        )
        if answer is None:
            unwritten.append(job)
            batch.added.append(job)
            known[job.id] = (job.queue, job.kind, job.payload, job.dedupe_key)
            if job.dedupe_key is not None:
                holders[job.dedupe_key] = (job.id, JobStatus.PENDING.value)
            answer = Enqueued(job.id)
        if atomic and isinstance(answer, StorageError):
            raise answer
        batch.answers.append(answer)
    await _write(tx, unwritten)
    await _ensure_queues(tx, batch.added)
    return batch


async def _write(tx: AwaitedTx, unwritten: list[NewJob]) -> None:
    for start in range(0, len(unwritten), limits.BULK_CHUNK):
        chunk = unwritten[start : start + limits.BULK_CHUNK]
        if await _insert(tx, chunk) != len(chunk):
            raise _Raced
    holds = [
        (job.dedupe_key, job.id, tx.now_us + job.unique_for_us) for job in unwritten if job.unique_for_us is not None
    ]
    if holds:
        await tx.change_many(HOLD_KEY, holds)
    unwritten.clear()


def _known(job: NewJob, known: dict[str, tuple[object, ...]]) -> Answer | None:
    """A repeat of an id is the same job, or a mistake of the caller's."""
    if job.id not in known:
        return None
    if known[job.id] == (job.queue, job.kind, job.payload, job.dedupe_key):
        return Enqueued(job.id, repeated=True)
    return IdReused(job.id)


async def _held(
    tx: AwaitedTx, job: NewJob, holders: dict[str, tuple[str, str]], unwritten: list[NewJob], batch: Batch
) -> Answer | None:
    if job.dedupe_key is None or job.dedupe_key not in holders:
        return None
    holder, status = holders[job.dedupe_key]
    if job.on_conflict == OnConflict.ERROR:
        return DedupeConflict(job.dedupe_key, holder)
    if job.on_conflict == OnConflict.REPLACE and status in lifecycle.WAITING:
        await _write(tx, unwritten)  # the holder may be of this very batch
        if await _supersede(tx, JobId(holder), batch):
            await tx.change(FREE_HOLD, {"key": job.dedupe_key, "id": holder})
            return None
    return Deduped(JobId(holder), JobStatus(status))


async def _supersede(tx: AwaitedTx, holder: JobId, batch: Batch) -> bool:
    """End the waiting holder of a key in favour of another; False if it does not wait."""
    row = await tx.row(LOCK_JOB, {"id": holder})
    transition = lifecycle.supersede(locked(row).state) if row is not None else None
    if row is None or transition is None:
        return False
    changed = await tx.change(WRITE_JOB, as_row(locked(row), transition))
    assert changed == 1, f"job {holder} changed under its lock"
    batch.events.append(as_event(locked(row), transition, tx.now_us))
    return True


async def _full(tx: AwaitedTx, job: NewJob, known: KnownQueues, bounds: Mapping[str, int]) -> Answer | None:
    bound = bounds.get(job.queue)
    if bound is None:
        return None
    if await known.room(tx, job.queue, bound) <= 0:
        return QueueFull(job.queue, bound)
    known.added(job.queue)
    return None
