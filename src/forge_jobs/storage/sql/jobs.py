"""The job store over a driver: every verb is one operation, and what it tells the world comes after its commit."""

from __future__ import annotations

import asyncio
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

from forge_jobs import limits, tracing
from forge_jobs.clock import Clock, from_us
from forge_jobs.config import StoreConfig
from forge_jobs.ids import JobId, parse_id
from forge_jobs.storage.error import InvalidInput, OutcomeUnknown, StorageError
from forge_jobs.storage.explain.job import unknown_job
from forge_jobs.storage.protocol import PYTHON, STALE_AFTER, Claim, ClaimRequest, Exchange
from forge_jobs.storage.recent import FEW, Recent
from forge_jobs.storage.request import check_change, check_request, check_requests
from forge_jobs.storage.sql import admin
from forge_jobs.storage.sql.admin import Effects
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Tx, Wake
from forge_jobs.storage.sql.enqueue import Answer, Batch, KnownQueues, insert_jobs
from forge_jobs.storage.sql.events import SqlEvents
from forge_jobs.storage.sql.explain import explain_job
from forge_jobs.storage.sql.listing import count_by_status, list_page, read_cursor, search_page
from forge_jobs.storage.sql.reap import expire_due, revive_stale
from forge_jobs.storage.sql.rows import audit_params, error_entry, filter_params, job_row, progress, to_json
from forge_jobs.storage.sql.search import is_text_search
from forge_jobs.storage.sql.settle import Exchanged
from forge_jobs.storage.sql.transaction import Session, SqlTransaction
from forge_jobs.storage.types.answers import (
    BulkReport,
    CancelOutcome,
    DeleteOutcome,
    NotWaiting,
    Outstanding,
    Retried,
    RetryOutcome,
    Revived,
)
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.storage.types.event import Actor, EventType
from forge_jobs.storage.types.finalize import Finalize, FinalizeOutcome, Settled
from forge_jobs.storage.types.job import (
    Death,
    Deduped,
    Enqueued,
    EnqueueOutcome,
    EnqueueRequest,
    JobChange,
    JobDetail,
    JobFilter,
    JobOrder,
    JobRow,
    KindCounts,
    NewJob,
    Page,
)
from forge_jobs.storage.types.queue import QueueCounts
from forge_jobs.text import clean

INSERT_AUDIT = statement("insert_audit")
KEEP_PROGRESS = statement("keep_progress")
GET_JOB = statement("get_job")
ERRORS_OF_JOB = statement("errors_of_job")
PROGRESS_OF_JOB = statement("progress_of_job")
CHOOSE_IDS = statement("choose_ids")
WAITING_KINDS = statement("waiting_kinds")
RUNNING_KINDS = statement("running_kinds")
DEAD_KINDS = statement("dead_kinds")
DEATHS = statement("deaths")
LIST_CHILDREN = statement("list_children")
COUNT_CHILDREN = statement("count_children")
KINDS_THAT_WAIT = statement("kinds_that_wait")
LIST_QUEUES = statement("list_queues")
OUTSTANDING = statement("outstanding")
NEXT_DUE = statement("next_due")

BULK_ACT_BATCH: Final = 500
UNKNOWN_ID_BYTES: Final = 80
"""So much of what is no id is shown."""
T = TypeVar("T")
ExchangeOperation: TypeAlias = Callable[[Tx, Sequence[Finalize], Sequence[ClaimRequest]], Exchanged]
"""A backend's way to settle and claim in one transaction."""
SessionOpener: TypeAlias = Callable[[timedelta], tuple[Callable[[], Session], float]]
"""Given how long others may be kept waiting: how to open a session, and how long it may last."""


class SqlJobs:
    """Implements `JobStore`."""

    def __init__(
        self,
        driver: Driver,
        events: SqlEvents,
        wake: Wake,
        config: StoreConfig,
        known: KnownQueues,
        exchange: ExchangeOperation,
        session: SessionOpener,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._session = session
        self._driver = driver
        self._exchange = exchange
        self._events = events
        self._wake = wake
        self._config = config
        self._known = known
        self._gathering: list[tuple[NewJob, asyncio.Future[EnqueueOutcome]]] = []
        self._recent_kinds = Recent(self.kinds, cheap=lambda kinds: sum(map(_jobs_of, kinds)) <= FEW)
        self._recent_waiting = Recent(
            self.waiting_kinds, cheap=lambda found: sum(sum(own.values()) for own in found.values()) <= FEW
        )

    # Adding

    async def enqueue(self, request: EnqueueRequest, *, parent_id: JobId | None = None) -> EnqueueOutcome:
        if tracing.tracer() is None:
            return await self._enqueue(request, parent_id)
        with tracing.enqueuing([request]) as (traced,):
            return await self._enqueue(traced, parent_id)

    async def _enqueue(self, request: EnqueueRequest, parent_id: JobId | None) -> EnqueueOutcome:
        job = check_request(request, parent_id=parent_id, payload_max=self._config.payload_max)
        self._driver.check()
        answer: asyncio.Future[EnqueueOutcome] = asyncio.get_running_loop().create_future()
        if not self._gathering:  # the first of this turn of the loop; its neighbours join before the batch leaves
            self._driver.defer(self._send_gathered)
        self._gathering.append((job, answer))
        return await answer

    async def enqueue_bulk(
        self, requests: Sequence[EnqueueRequest], *, parent_id: JobId | None = None, actor: Actor | None = None
    ) -> list[EnqueueOutcome]:
        with tracing.enqueuing(requests) as traced:
            return await self._enqueue_bulk(traced, parent_id, actor)

    async def _enqueue_bulk(
        self, requests: Sequence[EnqueueRequest], parent_id: JobId | None, actor: Actor | None
    ) -> list[EnqueueOutcome]:
        jobs = check_requests(requests, parent_id=parent_id, payload_max=self._config.payload_max)
        if not jobs:
            return []

        def operation(tx: Tx) -> Batch:
            batch = insert_jobs(tx, jobs, self._known, atomic=True)
            if actor is not None:
                tx.change(INSERT_AUDIT, _audit_of_added(actor, jobs, batch))
            return batch

        began = time.monotonic()
        try:
            batch = await self._driver.write(operation, label="enqueue")
        except Exception as error:
            self._known.forget()
            if isinstance(error, OutcomeUnknown):
                raise OutcomeUnknown(str(error), tuple(job.id for job in jobs)) from error
            raise
        self._observe_enqueue(jobs, batch, began)
        self.tell_added(batch)
        return batch.answers  # type: ignore[return-value]  # atomic: a refusal was raised

    def _send_gathered(self) -> None:
        gathered, self._gathering = self._gathering, []
        self._send(gathered)

    def _send(self, gathered: list[tuple[NewJob, asyncio.Future[EnqueueOutcome]]]) -> None:
        jobs, began = [job for job, _ in gathered], time.monotonic()
        self._driver.submit(
            lambda tx: insert_jobs(tx, jobs, self._known, atomic=False),
            label="enqueue",
            done=lambda batch, error: self._answer_gathered(gathered, began, batch, error),
        )

    def _answer_gathered(
        self,
        gathered: list[tuple[NewJob, asyncio.Future[EnqueueOutcome]]],
        began: float,
        batch: Batch | None,
        error: Exception | None,
    ) -> None:
        answers: Sequence[Answer | Exception]
        if batch is None:
            assert error is not None
            self._known.forget()
            answers = [_for_one(error, job) for job, _ in gathered]
        else:
            answers = batch.answers
        for (job, future), answer in zip(gathered, answers, strict=True):
            if future.done():  # its caller gave up waiting; the job is in the store all the same
                continue
            if answer is None:
                self._send([(job, future)])
            elif isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        if batch is not None:
            self._observe_enqueue([job for job, _ in gathered], batch, began)
            self.tell_added(batch)

    def _observe_enqueue(self, jobs: Sequence[NewJob], batch: Batch, began: float) -> None:
        observer = self._driver.observer
        observer.measure("enqueue_seconds", time.monotonic() - began)
        observer.measure("batch_size", len(jobs), "enqueue")
        if len(batch.added) != len(jobs):
            for job, answer in zip(jobs, batch.answers, strict=True):
                if isinstance(answer, Deduped):
                    observer.count("deduped", job.queue, job.kind)

    def tell_added(self, batch: Batch) -> None:
        """Events and wakes of a batch that is committed."""
        self._events.push(batch.events)
        if batch.added:
            self._events.push_jobs(EventType.ENQUEUED, batch.now_us, batch.added)
        now = batch.now_us
        due = {
            job.queue for job in batch.added if job.delay_us == 0 and (job.run_at_us is None or job.run_at_us <= now)
        }
        later = {job.queue for job in batch.added} - due
        if due:
            self._wake.due(due)
        if later:
            self._wake.later(later)

    # Running

    async def settle_and_claim(self, settlements: Sequence[Finalize], claims: Sequence[ClaimRequest] = ()) -> Exchange:
        label = "settle" if settlements else "claim"

        def operation(tx: Tx) -> Exchanged:  # looked at on the driver's thread, right before it is sent
            if all(map(self._is_valid, claims)):
                return self._exchange(tx, settlements, claims)
            settled, _, now_us = self._exchange(tx, settlements, ())
            return settled, [Claim(queue=request.queue, jobs=(), now_us=now_us) for request in claims], now_us

        began = time.monotonic()
        settled, claimed, now_us = await self._driver.write(operation, label=label)
        self._observe_exchange(len(settlements), claimed, time.monotonic() - began)
        if settled.done:
            self._events.push_jobs(EventType.COMPLETED, now_us, settled.done)
        self._events.push(settled.events)
        for claim in claimed:
            if claim.jobs:
                self._events.push_jobs(EventType.STARTED, now_us, claim.jobs)
        if settled.waiting_queues:
            self._wake.due(settled.waiting_queues)
        return Exchange(settled=tuple(settled.answers), claims=tuple(claimed))

    def _observe_exchange(self, settled: int, claimed: Sequence[Claim], took_s: float) -> None:
        observer = self._driver.observer
        if settled:
            observer.measure("settle_seconds", took_s)
            observer.measure("batch_size", settled, "settle")
        if claimed:
            observer.measure("claim_seconds", took_s)
        for claim in claimed:
            observer.count("claims", "jobs" if claim.jobs else "none")
            if claim.jobs:
                observer.measure("batch_size", len(claim.jobs), "claim")

    def _is_valid(self, request: ClaimRequest) -> bool:
        return request.valid_until_us is None or self._clock.elapsed_us() <= request.valid_until_us

    async def claim(self, request: ClaimRequest) -> Claim:
        return (await self.settle_and_claim((), (request,))).claims[0]

    async def finalize(self, job_id: JobId, fence: int, outcome: FinalizeOutcome) -> Settled:
        return (await self.settle_and_claim((Finalize(job_id, fence, outcome),))).settled[0]

    async def begin(self, limit: timedelta) -> SqlTransaction:
        begin, limit_s = self._session(limit)
        transaction = SqlTransaction(begin, limit_s, self._config.payload_max, self._events, self._wake)
        await transaction.begin()
        return transaction

    async def revive_stale(
        self,
        stale_after: timedelta,
        *,
        limit: int = 100,
        max_crashes: Callable[[str], int] = lambda kind: 3,
        allowed: Callable[[], bool] = lambda: True,
    ) -> list[Revived]:
        revived, events = await self._driver.write(
            lambda tx: revive_stale(tx, stale_after, limit, max_crashes, allowed), label="revive"
        )
        self._events.push(events)
        if revived:
            self._wake.due({job.queue for job in revived})
        return revived

    async def expire_due(self, *, limit: int = 500) -> int:
        events = await self._driver.write(lambda tx: expire_due(tx, limit), label="expire")
        self._events.push(events)
        return len(events)

    async def set_progress(
        self, job_id: JobId, fence: int, *, current: float, total: float | None, message: str | None
    ) -> bool:
        text = None if message is None else clean(message, 4 * limits.PROGRESS_MESSAGE_LENGTH)
        params = {"id": job_id, "fence": fence, "current": current, "total": total, "message": text}
        return await self._driver.write(lambda tx: tx.change(KEEP_PROGRESS, params), label="progress") == 1

    # Mending

    async def cancel(self, job_id: JobId, *, actor: Actor = PYTHON) -> CancelOutcome:
        return await self._act("job.cancel", job_id, admin.cancel, actor, str)

    async def delete(self, job_id: JobId, *, actor: Actor = PYTHON) -> DeleteOutcome:
        return await self._act("job.delete", job_id, admin.delete, actor, str)

    async def retry(self, job_id: JobId, *, actor: Actor = PYTHON) -> RetryOutcome:
        def word(outcome: RetryOutcome) -> str:
            return "retried" if isinstance(outcome, Retried) else "refused"

        return await self._act("job.retry", job_id, admin.retry, actor, word)

    async def run_now(self, job_id: JobId, *, actor: Actor = PYTHON) -> bool:
        return await self._act("job.run_now", job_id, admin.run_now, actor, lambda done: "due" if done else "refused")

    async def change(self, job_id: JobId, change: JobChange, *, actor: Actor = PYTHON) -> NotWaiting | None:
        job_id = parse_id(job_id)
        wanted = check_change(change)
        refused, queue = await self._driver.write(lambda tx: admin.change(tx, job_id, wanted, actor), label="admin")
        if queue is not None:
            self._wake.due({queue})
        return refused

    async def act_on(
        self,
        action: str,
        chosen: JobFilter,
        *,
        limit: int | None = None,
        actor: Actor = PYTHON,
        watch: Callable[[BulkReport], bool] = lambda so_far: True,
    ) -> BulkReport:
        if action not in admin.ACTIONS:
            raise InvalidInput(
                f"action {action!r} must be one of {', '.join(sorted(admin.ACTIONS))}", field="action", reason="invalid"
            )
        changed, skipped, after = 0, Counter[str](), ""
        seen = 0
        while limit is None or seen < limit:
            size = BULK_ACT_BATCH if limit is None else min(BULK_ACT_BATCH, limit - seen)
            effects, ids, done = await self._driver.write(
                lambda tx, after=after, size=size: _act_on_batch(tx, action, chosen, after, size, skipped, actor),  # type: ignore[misc]
                label="admin",
            )
            self._tell(effects)
            changed += done
            seen += len(ids)
            if len(ids) < size or not watch(BulkReport(changed=changed, skipped=dict(skipped))):
                break
            after = ids[-1]
        return BulkReport(changed=changed, skipped=dict(skipped))

    async def _act(
        self,
        action: str,
        job_id: JobId,
        act: Callable[[Tx, JobId, Effects], T],
        actor: Actor,
        word: Callable[[T], str],
    ) -> T:
        job_id = parse_id(job_id)

        def operation(tx: Tx) -> tuple[T, Effects]:
            effects = Effects()
            outcome = act(tx, job_id, effects)
            tx.change(INSERT_AUDIT, audit_params(actor, action, job_id, outcome=word(outcome)))
            return outcome, effects

        outcome, effects = await self._driver.write(operation, label="admin")
        self._tell(effects)
        return outcome

    def _tell(self, effects: Effects) -> None:
        self._events.push(effects.events)
        if effects.deleted:
            self._events.forget(effects.deleted)
        if effects.due:
            self._wake.due(effects.due)

    # Reading

    async def get(self, job_id: JobId) -> JobDetail | None:
        try:
            job_id = parse_id(job_id)
        except InvalidInput:
            return None
        return await self._driver.read(lambda tx: _detail(tx, job_id))

    async def explain(self, job_id: JobId, *, stale_after: timedelta = STALE_AFTER) -> Sequence[Blocker]:
        try:
            known = parse_id(job_id)
        except InvalidInput:
            return unknown_job(clean(job_id, UNKNOWN_ID_BYTES) if isinstance(job_id, str) else repr(job_id)[:80])
        return await self._driver.read(lambda tx: explain_job(tx, known, stale_after))

    async def list_jobs(
        self,
        chosen: JobFilter,
        *,
        limit: int = 50,
        cursor: str | None = None,
        with_total: bool = True,
        order: JobOrder = JobOrder.NEWEST,
        counts: Mapping[str, QueueCounts] | None = None,
    ) -> Page:
        if type(limit) is not int or not 1 <= limit <= limits.PAGE:
            raise InvalidInput(f"limit {limit!r} is not within 1 … {limits.PAGE}", field="limit", reason="out_of_range")
        after = read_cursor(cursor, chosen, order)
        if is_text_search(chosen):
            return await search_page(self._driver.read, chosen, order, limit, after, with_total=with_total)
        return await self._driver.read(lambda tx: list_page(tx, chosen, order, limit, after, with_total, counts))

    async def children(self, job_id: JobId, *, limit: int) -> tuple[Sequence[JobRow], int]:
        def operation(tx: Tx) -> tuple[Sequence[JobRow], int]:
            rows = tx.rows(LIST_CHILDREN, {"parent": job_id, "limit": limit})
            total = tx.row(COUNT_CHILDREN, {"parent": job_id})
            return [job_row(row) for row in rows], total[0] if total else 0

        return await self._driver.read(operation)

    async def count(self, chosen: JobFilter) -> dict[str, int]:
        filter_params(chosen)  # refuses what is not legal before the store is asked
        return await self._driver.read(lambda tx: count_by_status(tx, chosen))

    async def kinds(self) -> list[KindCounts]:
        return await self._driver.read(_kinds)

    async def recent_kinds(self) -> list[KindCounts]:
        return await self._recent_kinds.get()

    async def deaths(self, queues: Sequence[str] | None = None, *, limit: int) -> list[Death]:
        def operation(tx: Tx) -> list[Death]:
            chosen = [row[0] for row in tx.rows(LIST_QUEUES)] if queues is None else queues
            heads = [tx.rows(DEATHS, {"queue": queue, "limit": limit}) for queue in chosen]
            rows = islice(heapq.merge(*heads, key=lambda row: row[5], reverse=True), limit)
            return [
                Death(id=JobId(row[0]), queue=row[1], kind=row[2], error=row[3], reason=row[4], at=from_us(row[5]))
                for row in rows
            ]

        return await self._driver.read(operation)

    async def waiting_kinds(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for queue, kind, count in await self._driver.read(lambda tx: tx.rows(WAITING_KINDS)):
            found.setdefault(queue, {})[kind] = count
        return found

    async def recent_waiting_kinds(self) -> dict[str, dict[str, int]]:
        return await self._recent_waiting.get()

    async def close(self) -> None:
        """End what is read beside."""
        await self._recent_kinds.close()
        await self._recent_waiting.close()

    async def kinds_that_wait(self) -> dict[str, list[str]]:
        def operation(tx: Tx) -> dict[str, list[str]]:
            queues = [row[0] for row in tx.rows(LIST_QUEUES)]
            return {name: [row[0] for row in tx.rows(KINDS_THAT_WAIT, {"queue": name})] for name in queues}

        return await self._driver.read(operation)

    async def outstanding(self, queues: Sequence[str], kinds: Sequence[str]) -> Outstanding:
        params = {"queues": to_json(list(queues)), "kinds": to_json(list(kinds))}
        row = await self._driver.read(lambda tx: tx.row(OUTSTANDING, params))
        ready, running, waiting = row or (0, 0, 0)
        return Outstanding(ready=ready, running=running, waiting=waiting)

    async def next_due(self, queues: Sequence[str]) -> datetime | None:
        row = await self._driver.read(lambda tx: tx.row(NEXT_DUE, {"queues": to_json(list(queues))}))
        return None if row is None or row[0] is None else from_us(row[0])


def _for_one(error: Exception, job: NewJob) -> Exception:
    """The failure of a shared transaction as the answer to one of its callers."""
    if isinstance(error, OutcomeUnknown):
        return OutcomeUnknown(f"{error}; repeating with id {job.id} is safe", (job.id,))
    if isinstance(error, StorageError):
        copy = type(error).__new__(type(error))
        copy.args = error.args
        copy.__dict__.update(error.__dict__)
        copy.__cause__ = error.__cause__
        return copy
    return error


def _act_on_batch(
    tx: Tx, action: str, chosen: JobFilter, after: str, size: int, skipped: Counter[str], actor: Actor
) -> tuple[Effects, list[JobId], int]:
    effects, refused = Effects(), Counter[str]()
    ids = [JobId(row[0]) for row in tx.rows(CHOOSE_IDS, {**filter_params(chosen), "after": after, "limit": size})]
    changed = admin.apply_to(tx, action, ids, refused, effects)
    if ids:
        outcome = "; ".join([f"changed {changed}", *(f"{reason} {n}" for reason, n in sorted(refused.items()))])
        target = to_json({k: v for k, v in filter_params(chosen).items() if v is not None})
        tx.change(INSERT_AUDIT, audit_params(actor, f"jobs.{action}", target, count=changed, outcome=outcome))
    skipped.update(refused)
    return effects, ids, changed


def _detail(tx: Tx, job_id: JobId) -> JobDetail | None:
    row = tx.row(GET_JOB, {"id": job_id})
    if row is None:
        return None
    job = job_row(row)
    current = tx.row(PROGRESS_OF_JOB, {"id": job_id, "fence": job.fence})
    return JobDetail(
        row=job,
        history=tuple(error_entry(entry) for entry in tx.rows(ERRORS_OF_JOB, {"id": job_id})),
        traceback=row[27],
        progress=None if current is None else progress(current),
        trace=json.loads(row[26]) if row[26] else None,
    )


def _jobs_of(kind: KindCounts) -> int:
    return kind.waiting + kind.in_progress + kind.dead


def _kinds(tx: Tx) -> list[KindCounts]:
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for queue, kind, count in tx.rows(WAITING_KINDS):
        counts.setdefault((queue, kind), {})["waiting"] = count
    for queue, kind, count in tx.rows(RUNNING_KINDS):
        counts.setdefault((queue, kind), {})["in_progress"] = count
    for queue in [row[0] for row in tx.rows(LIST_QUEUES)]:
        for kind, count in tx.rows(DEAD_KINDS, {"queue": queue}):
            counts.setdefault((queue, kind), {})["dead"] = count
    return [KindCounts(queue=queue, kind=kind, **found) for (queue, kind), found in sorted(counts.items())]


def _audit_of_added(actor: Actor, jobs: Sequence[NewJob], batch: Batch) -> Mapping[str, Any]:
    added = len(batch.added)
    target = batch.answers[0].id if len(jobs) == 1 and isinstance(batch.answers[0], (Enqueued, Deduped)) else ""
    after = {"queues": sorted({job.queue for job in jobs}), "kinds": sorted({job.kind for job in jobs})}
    outcome = f"added {added} of {len(jobs)}"
    return audit_params(actor, "job.enqueue", target, count=added, outcome=outcome, after=after)
