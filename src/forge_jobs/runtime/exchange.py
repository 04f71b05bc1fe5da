"""The exchange with the store: finished jobs out, claimed jobs in, together, as often as the store answers.

As many requests are under way as the store serves well at once, one or two; while they are, outcomes and free slots
gather for the next. So batches form by themselves, nothing waits for a timer, and a finalize and the next claim share
a commit.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from forge_jobs import limits, tracing
from forge_jobs.observe import tell
from forge_jobs.runtime import stacks
from forge_jobs.runtime.admission import refusals
from forge_jobs.runtime.running import Run, RunState
from forge_jobs.runtime.toll import NEVER, Toll
from forge_jobs.runtime.worker import Slot
from forge_jobs.storage.error import Busy, StorageError, StoreFull, StoreUnavailable
from forge_jobs.storage.protocol import CLUSTER, LIMITS, STACK, Claim, ClaimRequest, Exchange
from forge_jobs.storage.types.finalize import (
    APPLIED_DONE,
    Applied,
    Done,
    Finalize,
    FinalizeOutcome,
    Lost,
    Released,
    Repeated,
    Settled,
    Throttled,
)
from forge_jobs.storage.types.job import JobRecord, JobStatus
from forge_jobs.storage.types.process import Claimed

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.supervisor import Supervisor

log = logging.getLogger("forge_jobs.exchange")

SETTLE_BATCH: Final = 1_000
HALVE_FROM: Final = 32
"""From so many outcomes or slots on, half go with a first request and half with a second, so that the handlers of one
half run while the store works for the other."""
SETTLE_RETRY_S: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 5.0)
"""Waits between the tries of a finalize; the last repeats until the store answers."""
CLAIM_RETRY_S: Final = (0.5, 5.0)
QUIET_S: Final = 30.0
QUIET_POLL_S: Final = 2.0
IDLE_LOOK_S: Final = 2.0
BLOCKED_LOOK_S: Final = 0.05
"""How soon it is looked again whether claims are allowed, when nothing says so."""
STRAY_LOOKS: Final = 2
"""Beats that must have looked for claims nobody here knows before this process claims again."""
ALONE_PATIENCE_S: Final = 60.0
"""How long a process stops claiming to become idle for a job that must run alone, and how long it then
goes on as usual before it tries again."""


class Line:
    """One queue of this process: its idle slots, and when to claim for them."""

    def __init__(self, env: RuntimeEnv, queue: str) -> None:
        self.env = env
        self.queue = queue
        self.supervisor: Supervisor
        self.open = True
        """Whether it may claim: not while it is unknown whether its slots are still its own."""
        self.returning: set[Claimed] = set()
        """Jobs claimed for slots that closed meanwhile, on their way back."""
        self.permit = True
        """A wake that nobody has used yet."""
        self.poll_at = 0.0
        self.due_at = float("inf")
        self._idle: deque[Slot] = deque()
        self._worked_at = self._looked_at = asyncio.get_running_loop().time()

    def idle(self, slot: Slot) -> None:
        """A slot waits for a job."""
        if not self._idle:
            self._looked_at = asyncio.get_running_loop().time()
        self._idle.append(slot)
        if self.permit:
            self.env.exchanger.poke()

    def remove(self, slot: Slot) -> None:
        """The slot closes."""
        if slot in self._idle:
            self._idle.remove(slot)

    def returned(self, item: Finalize) -> None:
        """The store has a job back."""
        self.returning.discard(Claimed(item.job_id, item.fence))
        self.supervisor.look()

    @property
    def idle_slots(self) -> int:
        return len(self._idle)

    def wants(self, now: float) -> bool:
        return self.open and bool(self._idle) and (self.permit or now >= self.poll_at or now >= self.due_at)

    def waits_since(self, now: float) -> float:
        """For how many seconds idle slots have waited for an answer to what jobs there are. From any thread."""
        return now - self._looked_at if self._idle else 0.0

    def next_look(self) -> float:
        """When the line wants a claim if nobody wakes it before."""
        return min(self.poll_at, self.due_at) if self.open and self._idle else float("inf")

    def take_slots(self, limit: int) -> tuple[Slot, ...]:
        """Up to `limit` idle slots, reserved for a claim."""
        count = min(limit, len(self._idle))
        self.permit = count < len(self._idle)
        slots = tuple(self._idle.popleft() for _ in range(count))
        for slot in slots:
            slot.reserved = True
        return slots

    def give(self, slots: Sequence[Slot], jobs: Sequence[JobRecord], *, alone: bool = False) -> None:
        """Hand claimed jobs to the reserved slots; the rest are idle again."""
        for slot in slots:
            slot.reserved = False
        for slot, job in zip(slots, jobs, strict=False):
            if slot.closing or self.env.stopping.is_set():
                self.returning.add(Claimed(job.id, job.fence))
                self.env.exchanger.release(job)
            else:
                slot.give(job, alone=alone)
        self._idle.extendleft(slot for slot in reversed(slots[len(jobs) :]) if not slot.closing)
        for slot in slots:
            if slot.closing:
                slot.close()

    def answered(self, claim: Claim, now: float, opens_at: float) -> None:
        """When to look again; at `opens_at` a rate limit has tokens for some kind that it had none for."""
        self._looked_at = now
        if claim.jobs:
            self._worked_at = now
        quiet = now - self._worked_at > QUIET_S and self.env.storage.wakes_proven
        self.permit = self.permit or claim.more
        self.poll_at = now + (max(QUIET_POLL_S, self._poll_s) if quiet else self._poll_s)
        due = claim.next_due_us
        self.due_at = float("inf") if due is None else now + max(due - claim.now_us, 0) / 1e6 + 0.001
        self.due_at = min(self.due_at, opens_at)

    def shut_until(self, opens_at: float, now: float) -> None:
        """Rate limits have tokens for no kind before that."""
        self._looked_at = now
        self.permit = False
        self.poll_at = now + self._poll_s
        self.due_at = opens_at

    def failed(self, now: float) -> None:
        self.permit = True
        self.poll_at = now + self._poll_s

    @property
    def _poll_s(self) -> float:
        return self.env.config.poll_ms / 1000


class Exchanger:
    """Settles and claims for the whole process."""

    def __init__(self, env: RuntimeEnv) -> None:
        self.env = env
        self.lines: dict[str, Line] = {}
        self._outbox: deque[tuple[Run | None, Finalize]] = deque()
        self._poked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._settle_not_before = 0.0
        self._claim_not_before = 0.0
        self._settle_failures = 0
        self._claim_failures = 0
        self._rotation = 0
        self._toll = Toll(env)
        self._admitting: set[Claimed] = set()
        """Claimed jobs that are being paid for."""
        self._most_in_flight = env.storage.exchanges_at_once
        self._sent_at: list[float] = []
        """When the requests that are under way were sent, oldest first."""
        self._claims_await_beat: int | None = None
        """Set when a claim's answer was lost: no claim before that many beats were accepted."""
        self._alone_since: float | None = None
        self._alone_rest_until = 0.0
        self._alone_run: Run | None = None

    # What others tell it

    def finished(self, run: Run, outcome: FinalizeOutcome) -> None:
        """The handler is over; record its outcome. A lost job's is dropped."""
        if run is self._alone_run:
            self._alone_run = None
        if run.lost:
            self.env.running.remove(run)
            self.env.job_logs.settled(run, None)
            self.env.health.counts["lost"] += 1
        else:
            self._outbox.append((run, Finalize(run.job.id, run.job.fence, outcome, run.job)))
        self.poke()

    def release(self, job: JobRecord) -> None:
        """Give back a claimed job that was not started."""
        self._outbox.append((None, Finalize(job.id, job.fence, Released(), job)))
        self.poke()

    def release_stray(self, claimed: Claimed) -> None:
        """Give back a claim whose answer never arrived."""
        self._outbox.append((None, Finalize(claimed.job_id, claimed.fence, Released())))
        self.poke()

    def wake(self, queues: frozenset[str] | None) -> None:
        """Something may be ready."""
        for line in self.lines.values():
            if queues is None or line.queue in queues:
                line.permit = True
                line.supervisor.woken(named=queues is not None)
        if queues is not None and LIMITS in queues:
            self._toll.forget()
            for line in self.lines.values():
                line.permit = True
        if queues is not None and STACK in queues:
            stacks.asked(self.env, queues)
        if queues is not None and CLUSTER in queues:
            for line in self.lines.values():
                line.supervisor.look()
            for listener in self.env.listeners[CLUSTER]:
                listener.set()
        self.poke()

    def poke(self) -> None:
        self._poked.set()

    def knows(self, claimed: Claimed) -> bool:
        """Whether the claim is in one of this process's lists."""
        return (
            claimed in self.env.running
            or claimed in self._admitting
            or any(item.job_id == claimed.job_id and item.fence == claimed.fence for _, item in self._outbox)
        )

    def knows_outcome(self, claimed: Claimed) -> bool:
        """Whether the claim's handler is over and its outcome on the way: the settle itself says if it was lost."""
        run = self.env.running.get(claimed)
        return run is not None and run.state in (RunState.ENDED, RunState.ABANDONED)

    @property
    def unsettled(self) -> int:
        """Outcomes that the store does not have yet."""
        return len(self._outbox) + len(self._sent_at)

    @property
    def claiming(self) -> int:
        """Slots for which a claim is under way."""
        return sum(slot.reserved for line in self.lines.values() for slot in line.supervisor.slots.values())

    @property
    def oldest_in_flight(self) -> float | None:
        """When the oldest request that is under way was sent, by the event loop's clock."""
        return self._sent_at[0] if self._sent_at else None

    # The loop

    async def run(self) -> None:
        """Exchange until cancelled."""
        async with asyncio.TaskGroup() as channels:
            for number in range(self._most_in_flight):
                channels.create_task(self._exchange_on(), name=f"forge-exchange-{number}")

    async def _exchange_on(self) -> None:
        while True:
            self._poked.clear()
            if not await self._exchange():
                await self._sleep()

    async def flush(self) -> None:
        """Settle what has ended, without claiming. For the shutdown, after `run` was cancelled."""
        while self._outbox:
            await self._send(self._take_outbox(), [])
            delay = self._settle_not_before - self._loop.time()
            if self._outbox and delay > 0:
                await asyncio.sleep(delay)

    async def _exchange(self) -> bool:
        """One exchange; False if there was nothing to say."""
        now = self._loop.time()
        if self.env.beat_overdue:
            await self.env.heartbeat.beat_now()
        settlements = self._take_outbox() if now >= self._settle_not_before else []
        claims = self._claims(now)
        if not settlements and not claims:
            return False
        await self._send(settlements, claims)
        return True

    async def _send(
        self, settlements: list[tuple[Run | None, Finalize]], claims: list[tuple[Line, tuple[Slot, ...], ClaimRequest]]
    ) -> None:
        sent_at = self._loop.time()
        self._sent_at.append(sent_at)
        try:
            await self._deal(settlements, claims)
        finally:
            self._sent_at.remove(sent_at)

    async def _deal(
        self, settlements: list[tuple[Run | None, Finalize]], claims: list[tuple[Line, tuple[Slot, ...], ClaimRequest]]
    ) -> None:
        began_ns = tracing.begin_exchange()
        try:
            await self._progress(settlements)
            answer = await self.env.storage.jobs.settle_and_claim(
                [item for _, item in settlements], [request for _, _, request in claims]
            )
        except Exception as error:
            self._failed(error, settlements, claims)
            return
        except BaseException:
            self._outbox.extendleft(reversed(settlements))
            raise
        self._settle_failures = self._claim_failures = 0
        traced = None if began_ns is None else _traced(began_ns, settlements, answer)
        for (run, item), settled in zip(settlements, answer.settled, strict=True):
            if run is not None:
                self.env.running.remove(run)
                if run.log_lines is not None:
                    self.env.job_logs.settled(run, settled)
                if run.slot.closing:
                    run.slot.line.supervisor.look()
            elif item.job is not None:
                self.lines[item.job.queue].returned(item)
            if settled is not APPLIED_DONE:
                self._settled(item, settled)
            if self.env.on_settled is not None:
                self.env.on_settled(item, settled)
        if log.isEnabledFor(logging.DEBUG):
            _tell_all(settlements, answer)
        self.env.health.counts["finished"] += sum(settled is APPLIED_DONE for settled in answer.settled)
        admitted = await self._admitted(claims, answer.claims)
        now = self._loop.time()
        for (line, slots, request), claim, jobs in zip(claims, answer.claims, admitted, strict=True):
            self._toll.learn(claim, now)
            line.answered(claim, now, self._toll.opens_at)
            self._alone_answered(line, request, claim, now)
            line.give(slots, jobs, alone=request.alone)
            if traced is not None:
                self._came_with(traced, jobs)
            if request.alone and jobs:
                self._alone_run = self.env.running.get(Claimed(jobs[0].id, jobs[0].fence))

    def _came_with(self, exchange: tracing.Exchanged, jobs: Sequence[JobRecord]) -> None:
        """The runs that were just given out begin later, when their slots wake up: their spans name the exchange."""
        for job in jobs:
            run = self.env.running.get(Claimed(job.id, job.fence))
            if run is not None:
                run.claim_traced = exchange

    async def _admitted(
        self, claims: list[tuple[Line, tuple[Slot, ...], ClaimRequest]], answered: Sequence[Claim]
    ) -> list[Sequence[JobRecord]]:
        """Of each claim those jobs that may start; the others go back."""
        every = [job for claim in answered for job in claim.jobs]
        if not self._toll.by_payload(every):
            return [claim.jobs for claim in answered]
        claimed = {Claimed(job.id, job.fence) for job in every}
        self._admitting |= claimed
        try:
            refused = await refusals(self.env, every)
        except BaseException:
            for job in every:
                self.release(job)
            for line, slots, _ in claims:
                line.give(slots, ())
            raise
        finally:
            self._admitting -= claimed
        for job in every:
            if job.id in refused:
                self.lines[job.queue].returning.add(Claimed(job.id, job.fence))
                self._outbox.append((None, Finalize(job.id, job.fence, refused[job.id], job)))
        if refused:
            self.poke()
        return [[job for job in claim.jobs if job.id not in refused] for claim in answered]

    def _settled(self, item: Finalize, settled: Settled) -> None:
        counts = self.env.health.counts
        if isinstance(settled, Lost):
            counts["lost"] += 1
        elif isinstance(item.outcome, Released):
            counts["released"] += 1
        else:
            counts["finished"] += 1
        if not isinstance(item.outcome, Done) or isinstance(settled, Lost):
            _tell(item, settled)
            if isinstance(settled, Repeated) or (isinstance(settled, Applied) and settled.status is JobStatus.DEAD):
                self.env.deaths.note(item.job_id)

    async def _progress(self, settlements: list[tuple[Run | None, Finalize]]) -> None:
        """The last progress of jobs that ended, before they are settled; best effort."""
        for run, _ in settlements:
            if run is not None and (due := run.take_progress()) is not None:
                current, total, message = due
                try:
                    await self.env.storage.jobs.set_progress(
                        run.job.id, run.job.fence, current=current, total=total, message=message
                    )
                except Exception as error:
                    log.warning("progress_lost job_id=%s error=%s", run.job.id, error)

    def _failed(
        self,
        error: Exception,
        settlements: list[tuple[Run | None, Finalize]],
        claims: list[tuple[Line, tuple[Slot, ...], ClaimRequest]],
    ) -> None:
        now = self._loop.time()
        self.env.health.counts["store_errors"] += 1
        if isinstance(error, StoreUnavailable) and error.fatal:
            self.env.health.fatal = error
            self.env.stopping.set()
        if not isinstance(error, StorageError):
            log.exception("exchange_fault")
        if settlements:
            self._outbox.extendleft(reversed(settlements))
            wait = SETTLE_RETRY_S[min(self._settle_failures, len(SETTLE_RETRY_S) - 1)]
            self._settle_failures += 1
            self._settle_not_before = now + wait * random.uniform(0.9, 1.1)  # noqa: S311
        if claims:
            wait = min(CLAIM_RETRY_S[0] * 2**self._claim_failures, CLAIM_RETRY_S[1])
            self._claim_failures += 1
            self._claim_not_before = now + wait * random.uniform(0.8, 1.2)  # noqa: S311
            if not isinstance(error, (Busy, StoreFull)):  # the claim may have been committed all the same
                self._claims_await_beat = self.env.health.beats + STRAY_LOOKS
            for line, slots, _ in claims:
                line.give(slots, ())
                line.failed(now)
        log.warning(
            "store_error error=%s class=%s settlements_waiting=%d", error, type(error).__name__, len(self._outbox)
        )

    def _part_of(self, count: int) -> int:
        """How many of `count` go with the next request."""
        halve = count >= HALVE_FROM and self._most_in_flight > 1 and not self._sent_at
        return (count + 1) // 2 if halve else count

    def _take_outbox(self) -> list[tuple[Run | None, Finalize]]:
        size = min(self._part_of(len(self._outbox)), SETTLE_BATCH)
        if size == len(self._outbox):
            taken = list(self._outbox)
            self._outbox.clear()
            return taken
        return [self._outbox.popleft() for _ in range(size)]

    # When to claim

    def _claims(self, now: float) -> list[tuple[Line, tuple[Slot, ...], ClaimRequest]]:
        if not self._may_claim(now):
            return []
        wanting = [line for line in self.lines.values() if line.wants(now)]
        if not wanting:
            return []
        self._rotation = (self._rotation + 1) % len(wanting)
        wanting = wanting[self._rotation :] + wanting[: self._rotation]
        kinds, gates, opens_at = self._toll.passing(now)
        if not kinds and opens_at < NEVER:
            for line in wanting:
                line.shut_until(opens_at, now)
            return []
        alone_kinds = tuple(kind for kind in kinds if self.env.max_crashes(kind) == 1)
        full = self.env.threads.full
        alone = self._alone_since is not None
        claims = []
        for line in wanting[:1] if alone else wanting:
            most = 1 if alone else self._part_of(line.idle_slots)
            if (left := self._jobs_left()) <= 0:
                break
            slots = line.take_slots(min(most, left))
            request = ClaimRequest(
                queue=line.queue,
                kinds=kinds,
                host_id=self.env.host_id,
                slots=tuple(slot.process_id for slot in slots),
                alone=alone,
                alone_kinds=alone_kinds,
                valid_until_us=self.env.claims_valid_until_us,
                gates=gates,
            )
            if full:
                request = _without(self.env.threads.refused_kinds(line.queue), request)
            claims.append((line, slots, request))
        return claims

    def _may_claim(self, now: float) -> bool:
        health = self.env.health
        if self.env.leaving or health.claims_stopped or health.quiet or now < self._claim_not_before:
            return False
        if self._jobs_left() <= 0:
            if self.env.started >= self.env.config.max_jobs:
                self.env.retire("max_jobs")
            return False
        if health.loop_lag_ms > self.env.config.stale_s * 1000 / 3:
            return False
        if self._claims_await_beat is not None:
            if health.beats < self._claims_await_beat:
                return False
            self._claims_await_beat = None
        if len(self._outbox) >= 2 * max(sum(len(line.supervisor.slots) for line in self.lines.values()), 1):
            return False
        return self._alone_allows(now)

    def _jobs_left(self) -> int:
        """How many more jobs this process may take before it ends."""
        most = self.env.config.max_jobs
        return most - self.env.started - self.claiming if most else limits.SLOTS_PER_PROCESS

    # Jobs that must run alone

    def _alone_allows(self, now: float) -> bool:
        """While a job runs alone nothing is claimed; while one waits for that, nothing until the process is idle."""
        if self._alone_run is not None:
            return False
        if self._alone_since is None:
            return True
        if not len(self.env.running) and not self._outbox and not self._sent_at:
            return True
        if now - self._alone_since > ALONE_PATIENCE_S:
            self._alone_since, self._alone_rest_until = None, now + ALONE_PATIENCE_S
            return True
        return False

    def _alone_answered(self, line: Line, request: ClaimRequest, claim: Claim, now: float) -> None:
        if not request.alone:
            if claim.alone_waiting and self._alone_since is None and now >= self._alone_rest_until:
                self._alone_since = now
                line.permit = True
            return
        self._alone_since = None
        line.permit = True  # look for ordinary jobs next

    async def _sleep(self) -> None:
        """Until something is said, or a line wants to look."""
        if self._poked.is_set():
            return
        now = self._loop.time()
        if any(line.wants(now) for line in self.lines.values()):  # but something forbids claims at the moment
            until = max(self._claim_not_before, now + BLOCKED_LOOK_S)
        else:
            until = min((line.next_look() for line in self.lines.values()), default=now + IDLE_LOOK_S)
        if self._outbox:
            until = min(until, self._settle_not_before)
        until = min(max(until, now + 0.001), now + IDLE_LOOK_S)
        timer = self._loop.call_at(until, self._poked.set)
        try:
            await self._poked.wait()
        finally:
            timer.cancel()


def _traced(began_ns: int, settlements: Sequence[tuple[Run | None, Finalize]], answer: Exchange) -> tracing.Exchanged:
    """The exchange for traces, in which its settlements end."""
    claimed = sum(len(claim.jobs) for claim in answer.claims)
    exchange = tracing.end_exchange(began_ns, settled=len(settlements), claimed=claimed)
    for (run, _), settled in zip(settlements, answer.settled, strict=True):
        if run is not None and run.span is not None:
            tracing.end_settle(run.span, run.job, exchange, type(settled).__name__.lower())
    return exchange


def _without(kinds: Collection[str], request: ClaimRequest) -> ClaimRequest:
    """The same claim, but not of these kinds."""
    return replace(
        request,
        kinds=tuple(kind for kind in request.kinds if kind not in kinds),
        alone_kinds=tuple(kind for kind in request.alone_kinds if kind not in kinds),
        gates=tuple(gate for gate in request.gates if gate.kind not in kinds),
    )


def _tell_all(settlements: Sequence[tuple[Run | None, Finalize]], answer: Exchange) -> None:
    """What is ordinary, for whoever wants to see every job."""
    for (_, item), settled in zip(settlements, answer.settled, strict=True):
        if settled is APPLIED_DONE and item.job is not None:
            log.debug(
                "job_done job_id=%s kind=%s queue=%s fence=%d", item.job_id, item.job.kind, item.job.queue, item.fence
            )
    for claim in answer.claims:
        for job in claim.jobs:
            log.debug("claimed job_id=%s kind=%s queue=%s fence=%d", job.id, job.kind, job.queue, job.fence)


def _tell(item: Finalize, settled: Settled) -> None:
    """One line for every outcome but an ordinary Done."""
    error = getattr(item.outcome, "error", None)
    fields = {
        "job_id": item.job_id,
        "kind": item.job and item.job.kind,
        "queue": item.job and item.job.queue,
        "attempt": item.job and item.job.attempts,
        "fence": item.fence,
        "error": error and error.message[:200],
    }
    match settled, item.outcome:
        case Lost(), _:
            tell(log, logging.WARNING, "lost_ownership", **fields)
        case Applied(status=JobStatus.DEAD, dead_reason=reason), _:
            tell(log, logging.WARNING, "job_dead", **fields, reason=reason)
        case _, Released():
            tell(log, logging.INFO, "job_released", **fields)
        case _, Throttled(delay=delay):
            tell(log, logging.INFO, "job_throttled", **fields, delay_s=delay.total_seconds())
        case _:
            tell(log, logging.INFO, "job_failed", **fields)
