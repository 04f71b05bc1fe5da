"""What the rest of forge-jobs asks of a store.

Cut by noun, few verbs each; a backend is one object with these parts. Every verb is atomic: it is one
transaction that either happens or does not. Times are the store's own (`Storage.clock`), never a
caller's. Verbs raise the classes of `forge_jobs.storage.error`: `Busy` (nothing was written),
`StoreFull` (nothing was written), `StoreUnavailable`, and `OutcomeUnknown` for an enqueue whose answer
was lost. `forge_jobs.testing.conformance` says, as tests, what a backend must do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from forge_jobs.clock import Clock
from forge_jobs.ids import JobId
from forge_jobs.observe import Observer
from forge_jobs.storage.types.answers import (
    BulkReport,
    CancelOutcome,
    CleanupReport,
    DeleteOutcome,
    NotWaiting,
    Outstanding,
    RetryOutcome,
    Revived,
)
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.storage.types.event import Actor, AuditPage, AuditRow, JobEvent
from forge_jobs.storage.types.finalize import Finalize, FinalizeOutcome, Settled
from forge_jobs.storage.types.job import (
    Death,
    EnqueueOutcome,
    EnqueueRequest,
    ErrorEntry,
    JobChange,
    JobDetail,
    JobFilter,
    JobOrder,
    JobRecord,
    JobRow,
    KindCounts,
    Page,
)
from forge_jobs.storage.types.lease import Lease
from forge_jobs.storage.types.log import LogLine, RunLog
from forge_jobs.storage.types.metric import Bucket, Summary, Timings
from forge_jobs.storage.types.process import BeatAnswer, Claimed, ProcessInfo, ProcessRow, ProcessWish
from forge_jobs.storage.types.queue import QueueChange, QueueCounts, QueueSettings
from forge_jobs.storage.types.rate_limit import Acquired, Gate, RateLimit, RateLimitDeclaration
from forge_jobs.storage.types.schedule import (
    DueSchedules,
    Firing,
    Schedule,
    ScheduleChange,
    ScheduleDeclaration,
    Tick,
)
from forge_jobs.storage.types.share import Assignment, Share, Standing

PYTHON = Actor()
STALE_AFTER: Final = timedelta(seconds=30)
"""After so long without a heartbeat workers take a process for gone, unless they are configured otherwise."""
CLUSTER: Final = "/cluster"
"""A wake with this name among its queues, which no queue can have, says that processes, totals, shares or schedules
changed."""
LIMITS: Final = "/limits"
"""A wake with this name says that a rate limit was changed."""
STACK: Final = "/stack"
"""A wake with this name, and with `/stack/ID` beside it, asks the worker of job ID to log where its handler is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    """A wish for up to `limit` ready jobs of one queue.

    `slots` are the process ids of the free slots, as many as `limit`; job n goes to slot n. Only `kinds` are
    taken. With `alone` the store gives one job whose next crash would be its last, or of `alone_kinds`, and
    nothing else; without it such jobs are left. `gates` are the kinds that are paid for: no more of them are
    taken than their scope holds tokens for, and these are spent with the claim. After `valid_until_us`, on the host's
    elapsed clock, nothing is taken: a claim that was held up, perhaps because its process stood still, is based on
    what is no longer true.
    """

    queue: str
    kinds: tuple[str, ...]
    host_id: str
    slots: tuple[str, ...]
    alone: bool = False
    alone_kinds: tuple[str, ...] = ()
    valid_until_us: int | None = None
    gates: tuple[Gate, ...] = ()

    @property
    def limit(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The answer to one `ClaimRequest`: jobs in the order (priority, scheduled_at, id), already in progress.

    `more`: the limit was reached, so there may be others. `alone_waiting`: a ready job waits to run alone.
    `next_due_us`: when the queue's next job falls due or its cool-down ends, if the limit was not reached;
    `now_us` is the store's time of the claim. `limited`: the scopes of gates that can pay for no job at the moment,
    each with how many microseconds until they can.
    """

    queue: str
    jobs: tuple[JobRecord, ...]
    now_us: int
    more: bool = False
    alone_waiting: bool = False
    next_due_us: int | None = None
    limited: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The answers of one `settle_and_claim`, in the order asked."""

    settled: tuple[Settled, ...]
    claims: tuple[Claim, ...]


class JobTransaction(Protocol):
    """A write transaction on a connection of its own, for a handler that wants its rows and its job's end together."""

    limit_s: float
    """Its caller ends it within so many seconds."""

    @property
    def connection(self) -> Any:
        """The driver's connection."""

    async def execute(self, sql: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement, in the driver's own style of parameters; its rows, if it gives any."""

    async def enqueue_bulk(self, requests: Sequence[EnqueueRequest], *, parent_id: JobId) -> list[EnqueueOutcome]:
        """Add jobs with the commit; outcomes in request order."""

    async def commit(self, job_id: JobId, fence: int, *, finish: bool) -> None:
        """Commit if `fence` is still the job's and it is in progress, with `finish` as done.

        Raises:
            LostOwnership: it is not; nothing is committed.
            OutcomeUnknown: the answer was lost.
        """

    async def close(self) -> None:
        """Roll back what is not committed."""


class JobStore(Protocol):
    """Jobs: added, claimed, settled, mended and read."""

    async def enqueue(self, request: EnqueueRequest, *, parent_id: JobId | None = None) -> EnqueueOutcome:
        """Add one job. Durable when it returns; concurrent callers share a commit.

        Raises:
            InvalidInput: the request breaks a rule; nothing was written.
            DedupeConflict, IdReused, QueueFull: see there; nothing was written.
            OutcomeUnknown: the answer was lost; a repeat with the same id is safe.
        """

    async def enqueue_bulk(
        self, requests: Sequence[EnqueueRequest], *, parent_id: JobId | None = None, actor: Actor | None = None
    ) -> list[EnqueueOutcome]:
        """Add up to 10 000 jobs in one transaction, all or nothing; outcomes in request order. With an `actor` it is a
        person's act, and audited."""

    async def settle_and_claim(self, settlements: Sequence[Finalize], claims: Sequence[ClaimRequest] = ()) -> Exchange:
        """Finalize finished jobs and claim new ones in one transaction, settlements first.

        One settlement's trouble never touches another's. Settling again what is settled answers `Repeated`.
        """

    async def claim(self, request: ClaimRequest) -> Claim:
        """Take up to `request.limit` ready jobs, lowest `(priority, scheduled_at, id)` first.

        Ready means `pending` or `failed` and due, not expired, of one of the kinds, on a queue that is neither
        paused nor cooling down. Taken jobs are `in_progress`, fence and attempts raised by one: a caller that
        drops them strands them until `revive_stale`. Two callers never get the same job.
        """

    async def finalize(self, job_id: JobId, fence: int, outcome: FinalizeOutcome) -> Settled:
        """Record what became of a claimed job, if `fence` is still its fence."""

    async def begin(self, limit: timedelta) -> JobTransaction:
        """Open a transaction for a handler; where it keeps others from writing, for at most `limit`."""

    async def revive_stale(
        self,
        stale_after: timedelta,
        *,
        limit: int = 100,
        max_crashes: Callable[[str], int] = lambda kind: 3,
        allowed: Callable[[], bool] = lambda: True,
    ) -> list[Revived]:
        """Take back up to `limit` running jobs whose owner has been silent for `stale_after`, oldest beat first.

        A job whose row was locked by somebody while its owner went on beating has not lost its owner.

        `allowed` is asked, on any thread, once the store answers: a call that waited out an outage comes before the
        owners' next beats, and must not take their jobs.
        """

    async def expire_due(self, *, limit: int = 500) -> int:
        """End waiting jobs past their `expires_at`; returns how many."""

    async def set_progress(
        self, job_id: JobId, fence: int, *, current: float, total: float | None, message: str | None
    ) -> bool:
        """Keep the newest progress of a run. False: the fence is not current, nothing was kept."""

    async def cancel(self, job_id: JobId, *, actor: Actor = PYTHON) -> CancelOutcome:
        """A waiting job ends `dead`/`cancelled`; a running one is asked to stop."""

    async def delete(self, job_id: JobId, *, actor: Actor = PYTHON) -> DeleteOutcome:
        """Remove a job with its history; a running one is asked to stop instead."""

    async def retry(self, job_id: JobId, *, actor: Actor = PYTHON) -> RetryOutcome:
        """Make a failed or dead job pending, due now, with a fresh budget."""

    async def run_now(self, job_id: JobId, *, actor: Actor = PYTHON) -> bool:
        """Make a pending job due now; False for any other."""

    async def change(self, job_id: JobId, change: JobChange, *, actor: Actor = PYTHON) -> NotWaiting | None:
        """Change a job that waits; None if it was done.

        Raises:
            InvalidInput: a value is not legal; nothing was written.
        """

    async def act_on(
        self,
        action: str,
        chosen: JobFilter,
        *,
        limit: int | None = None,
        actor: Actor = PYTHON,
        watch: Callable[[BulkReport], bool] = lambda so_far: True,
    ) -> BulkReport:
        """`retry`, `cancel`, `delete` or `run_now` for every job that `chosen` names, in batches of 500 by id.

        Each batch is one transaction. Rows that the action does not fit are skipped and counted by reason. `watch` is
        told after each batch what was done so far; its False ends the act there.
        """

    async def get(self, job_id: JobId) -> JobDetail | None:
        """Everything about one job, or None."""

    async def explain(self, job_id: JobId, *, stale_after: timedelta = STALE_AFTER) -> Sequence[Blocker]:
        """Why the job does not run at the moment, most final first; `ready` if the next claim takes it.

        Never empty, read in one snapshot by the predicates of `claim`, and nothing is written. Of what passes within
        milliseconds, such as a claim under way, nothing is said. `stale_after` is the workers' own threshold.
        """

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
        """One page of the jobs that `chosen` names, newest id first, with their true total unless told otherwise.

        In the order `scheduled` it is of those that wait, in the order `completed` of those that ended. With `counts`,
        which `recent_counts` gave, a total that follows from them is of that time.

        A search for text takes about 2 s: if they are not counted by then, the page tells how many there are at least,
        and if it is not full by then, it is what was found so far; its cursor goes on from there.
        """

    async def children(self, job_id: JobId, *, limit: int) -> tuple[Sequence[JobRow], int]:
        """The newest jobs that this one enqueued, and how many there are."""

    async def count(self, chosen: JobFilter) -> dict[str, int]:
        """How many jobs `chosen` names, by status."""

    async def waiting_kinds(self) -> dict[str, dict[str, int]]:
        """How many jobs wait, due or not, by queue and kind. Costs what waits."""

    async def recent_waiting_kinds(self) -> dict[str, dict[str, int]]:
        """The same for views, as `recent_counts` is of queues."""

    async def kinds(self) -> list[KindCounts]:
        """What there is to do, is being done and died, by queue and kind. Costs as many rows."""

    async def recent_kinds(self) -> list[KindCounts]:
        """The same for views, as `recent_counts` is of queues."""

    async def deaths(self, queues: Sequence[str] | None = None, *, limit: int) -> list[Death]:
        """How the newest dead jobs ended, latest first."""

    async def kinds_that_wait(self) -> dict[str, list[str]]:
        """The kinds with waiting jobs, due or not, by queue. Costs what kinds there are, not what jobs."""

    async def outstanding(self, queues: Sequence[str], kinds: Sequence[str]) -> Outstanding:
        """What is left to do of these queues and kinds."""

    async def next_due(self, queues: Sequence[str]) -> datetime | None:
        """The soonest instant at which a job of these queues that is not due yet becomes due, or a
        cool-down ends."""


class QueueStore(Protocol):
    """Queues: their settings, pause, cool-down and counts."""

    async def ensure(self, name: str, defaults: QueueChange | None = None) -> QueueSettings:
        """The queue's settings; a row with defaults is made if there is none. A tuned value is never overwritten."""

    async def add(self, name: str, change: QueueChange, *, actor: Actor = PYTHON) -> bool:
        """Make a queue with these settings, as an operator. False: there is one, and it stays as it is."""

    async def get(self, name: str) -> QueueSettings | None: ...

    async def list(self) -> list[QueueSettings]:
        """All queues by name."""

    async def explain(self, name: str, *, stale_after: timedelta = STALE_AFTER) -> Sequence[Blocker]:
        """What stands in the way of the queue's jobs, as `JobStore.explain`; `ready` if workers take some, `idle` if
        none is due."""

    async def change(
        self,
        name: str,
        change: QueueChange,
        *,
        check: Callable[[QueueSettings], None] = lambda found: None,
        actor: Actor = PYTHON,
    ) -> QueueSettings:
        """Change settings, clamped to their limits; returns what is stored.

        `check` is told in the same transaction what is stored, and nobody changes that until the commit: what it
        raises is raised here, and nothing is written. It may be called twice.

        Raises:
            NotFound: there is no such queue.
        """

    async def pause(self, name: str, *, signal: bool = True, process: str | None = None, actor: Actor = PYTHON) -> bool:
        """Stop claims of the queue everywhere, or in one process (a host id). Once it has returned no claim
        succeeds, restarts included. With `signal` running handlers are told. False: it was paused already."""

    async def resume(self, name: str, *, process: str | None = None, actor: Actor = PYTHON) -> bool:
        """Undo `pause`. False: it was not paused."""

    async def clear_cool_down(self, name: str, *, actor: Actor = PYTHON) -> QueueSettings:
        """Forget the queue's throttle count and window."""

    async def delete(self, name: str, *, actor: Actor = PYTHON) -> None:
        """Remove a queue without jobs.

        Raises:
            NotFound: there is no such queue.
            QueueInUse: it has jobs, or a live process declares it.
        """

    async def counts(self) -> dict[str, QueueCounts]:
        """Jobs by queue and status, exact. Costs what waits and runs, and what finished since `fold_counts`."""

    async def recent_counts(self) -> dict[str, QueueCounts]:
        """The same for views that look again and again: exact while no more than 20 000 jobs wait and run. Of more,
        the answer is shared and some seconds old: at most 5 % of the time goes into counting.
        """

    async def fold_counts(self) -> None:
        """Count the finished jobs once and for all, so that `counts` need not: those that ended two minutes ago or
        earlier, since what is being written at this moment may bear a time from before."""


class Heart(Protocol):
    """A connection of its own that beats for one process. Blocking: it lives on the heartbeat's thread."""

    def beat(self, process: ProcessInfo, claims: Sequence[Claimed]) -> BeatAnswer:
        """Refresh the process row and the heartbeat of every claim, in one transaction."""

    def close(self) -> None: ...


class ProcessStore(Protocol):
    """Worker processes."""

    def open_heart(self, deadline: timedelta) -> Heart:
        """A heart whose beats each take at most `deadline`, else raise `Busy` or `StoreUnavailable`."""

    async def list(self, stale_after: timedelta) -> list[ProcessRow]:
        """Every known process by host id; `live` if its heartbeat is younger than `stale_after`."""

    async def ask(self, host_id: str, wish: ProcessWish | None, *, actor: Actor = PYTHON) -> None:
        """Ask something of a process, which learns it with its next heartbeat; None takes it back.

        Raises:
            NotFound: there is no such process.
        """

    async def remove(self, host_id: str) -> None:
        """Forget a process, with its shares; its leases are free. Its clean end."""

    async def prune(self, silent_for: timedelta) -> int:
        """Forget processes silent for this long, with their shares; returns how many."""


class LeaseStore(Protocol):
    """Leases by name: at most one holder each, by the store's time. An optimisation, never what makes an act unique:
    a holder that stands still acts on after its lease ended."""

    async def take(self, name: str, holder: str, ttl: timedelta) -> Lease | None:
        """Hold the lease for `ttl` from now; None, and nothing is written, while another holds it.

        The token is one more than any before it, even for a holder that takes again what it holds.
        """

    async def renew(self, lease: Lease, ttl: timedelta) -> Lease | None:
        """Hold it for `ttl` from now; None if it was taken by another or released. One that ended but was not taken
        since is renewed."""

    async def release(self, lease: Lease) -> bool:
        """Let it go. False: it was not held under this token any longer."""

    async def list(self) -> list[Lease]:
        """The leases that are held now, by name."""


class ShareStore(Protocol):
    """How the totals of queues are split over processes. Shares say who should have how many slots; what is open,
    and that it is never more than the total, is decided by `open_slots` alone."""

    async def list(self) -> list[Share]:
        """Every row, by queue and host id, of live processes and others."""

    async def assign(self, shares: Sequence[Assignment]) -> int:
        """Write shares, all in one transaction; returns how many rows that changed. What is stored already, and what
        is for a process that is not on the list, is not written."""

    async def standing(self, queue: str, host_id: str, stale_after: timedelta) -> Standing:
        """What one process needs to know to open slots. A queue that does not exist has a total of 0."""

    async def open_slots(
        self, queue: str, host_id: str, *, staying: int, closing: int, wanted: int, stale_after: timedelta
    ) -> int:
        """Tell that the process has `staying` slots open, `closing` more that are closed but for the job in them, and
        would like `wanted`; how many may stay open from now on, see `Standing.may_open`. They are counted with the
        closing ones until the next call.

        So over the processes of a queue never more are open than its total, if each calls before it opens a slot, and
        leaves a closed one out only when its job is settled. Callers wait for each other. Slots of processes silent
        for `stale_after` are taken over, except for the jobs they still own. Nothing is written if nothing changed.
        """


class RateLimitStore(Protocol):
    """Rate limits by scope: token buckets that all processes share, by the store's time.

    A scope such as `slack:team-42` that does not exist is made from the limit `slack` if that is `per_key`.
    """

    async def acquire(self, scope: str, cost: float = 1, *, park: bool = False) -> Acquired:
        """Take `cost` tokens, or none and be told when to ask again: 50 ms to 60 s, and 60 s for an unknown scope.

        Concurrent callers of a process share a transaction. With `park` a refusal says when this caller's turn comes,
        at most 5 minutes, with a part of the refill of its own.

        Raises:
            InvalidInput: the cost is not a number above 0, or more than the capacity.
            OutcomeUnknown: the answer was lost; the tokens may be spent.
        """

    async def drain(
        self, scope: str, retry_after: float | timedelta | None = None, *, actor: Actor | None = None
    ) -> bool:
        """Empty the bucket, and with a hint (0 s to 7 days) keep it shut for that long; False: no such scope. With an
        `actor` it is a person's act, and audited."""

    async def ensure(self, declaration: RateLimitDeclaration) -> RateLimit:
        """The limit; made with a full bucket if it is missing, and never changed."""

    async def add(self, declaration: RateLimitDeclaration, *, actor: Actor = PYTHON) -> bool:
        """The same as an operator's act. False: it exists, and stays as it is."""

    async def change(
        self,
        scope: str,
        *,
        capacity: float | None = None,
        refill_per_s: float | None = None,
        actor: Actor = PYTHON,
    ) -> RateLimit:
        """Tune a limit, and every scope made from it. Tokens beyond a new capacity are gone; none are given.

        Raises:
            NotFound: there is no such scope.
        """

    async def put(
        self,
        declaration: RateLimitDeclaration,
        *,
        check: Callable[[RateLimit | None], None] = lambda found: None,
        actor: Actor = PYTHON,
    ) -> RateLimit:
        """Tune a limit as `change`, or make it as `add` if it is missing; one that exists stays a pattern, or none.

        `check` is told in the same transaction what is stored, None if nothing is, and nobody changes that until the
        commit: what it raises is raised here, and nothing is written. It may be called twice.
        """

    async def remove(self, scope: str, *, actor: Actor = PYTHON) -> bool:
        """Forget a limit and the scopes made from it: what they limit waits. False: there was none."""

    async def get(self, scope: str) -> RateLimit | None: ...

    async def list(self) -> list[RateLimit]:
        """All scopes by name, as they are now."""


class ScheduleStore(Protocol):
    """Schedules, and what became of their ticks."""

    async def ensure(self, declaration: ScheduleDeclaration) -> Schedule:
        """Bring what code declares into the store; what is stored then.

        An absent schedule is added. Of one that is there only settings are written that differ from what code declared
        last and that no operator changed; a declaration of a lower version changes nothing.

        Raises:
            InvalidInput: a setting is not legal; nothing was written.
        """

    async def add(self, declaration: ScheduleDeclaration, *, actor: Actor = PYTHON) -> Schedule:
        """Add a schedule as an operator; all its settings are the operator's.

        Raises:
            InvalidInput: a setting is not legal.
            ScheduleExists: there is one of this name.
        """

    async def get(self, name: str) -> Schedule | None: ...

    async def list(self) -> list[Schedule]:
        """All schedules by name."""

    async def explain(self, name: str, *, stale_after: timedelta = STALE_AFTER) -> Sequence[Blocker]:
        """What keeps the schedule from making its next job, most final first; only `scheduled` if nothing does."""

    async def change(
        self,
        name: str,
        change: ScheduleChange,
        *,
        check: Callable[[Schedule], None] = lambda found: None,
        actor: Actor = PYTHON,
    ) -> Schedule:
        """Change settings as an operator: code does not overwrite them from now on. A change of what the next tick
        depends on finds it anew, from now.

        `check` is told in the same transaction what is stored, and nobody changes that until the commit: what it
        raises is raised here, and nothing is written. It may be called twice.

        Raises:
            InvalidInput: a setting is not legal.
            NotFound: there is no such schedule.
        """

    async def enable(self, name: str, *, actor: Actor = PYTHON) -> Schedule:
        """Let it fire, from its first tick after now; errors are forgotten."""

    async def disable(self, name: str, *, actor: Actor = PYTHON) -> Schedule:
        """Stop it. Code does not turn it on again."""

    async def remove(self, name: str, *, actor: Actor = PYTHON) -> bool:
        """Forget the schedule; its jobs and ticks stay. False: there was none."""

    async def reset_to_code(self, name: str, *, actor: Actor = PYTHON) -> Schedule:
        """Undo what operators changed: what code declared last applies.

        Raises:
            NotFound: there is no such schedule, or code never declared it.
        """

    async def trigger(self, name: str, request: EnqueueRequest, *, actor: Actor = PYTHON) -> EnqueueOutcome:
        """Enqueue a job of the schedule now, outside of its ticks.

        Raises:
            NotFound: there is no such schedule.
            QueueFull, InvalidInput: see `JobStore.enqueue`; nothing was written.
        """

    async def due(self, now: datetime) -> DueSchedules:
        """The active schedules that are due at `now`, or whose next tick is not known."""

    async def seed(self, schedule: Schedule, next_fire_at: datetime | None) -> bool:
        """Write down when the schedule, as it was read, fires next; without an instant it is finished. False: it has
        changed since."""

    async def fire(self, firing: Firing) -> Sequence[Tick] | None:
        """Write the ticks with their jobs and move the schedule on, in one transaction, if it is as it was read.

        A tick whose job's key is held is skipped. None: another was first, or the schedule has changed; nothing was
        written.

        Raises:
            QueueFull, InvalidInput: see `JobStore.enqueue`; nothing was written.
        """

    async def record_error(self, schedule: Schedule, fire_at: datetime | None, error: str) -> None:
        """Keep why a tick could not be written. It stays due."""

    async def invalidate(self, schedule: Schedule, error: str) -> bool:
        """Stop a schedule that cannot be read any more. False: it has changed since."""

    async def ticks(self, name: str, *, limit: int = 50, before: datetime | None = None) -> Sequence[Tick]:
        """What became of the newest ticks, newest first; those earlier than `before`. They are kept for 30 days."""

    async def count_ticks(self, name: str) -> int:
        """How many ticks `ticks` would give in all."""


class EventStore(Protocol):
    """Job events: pushed into a bounded buffer after the change they tell of committed, flushed in chunks."""

    dropped: int
    """Events lost because the buffer was full."""

    def push(self, events: Sequence[JobEvent]) -> None: ...

    async def flush(self) -> int:
        """Write what is buffered; returns how many events. A failed flush puts them back at the front."""

    async def timeline(self, since: datetime, until: datetime, *, limit: int = 1_000) -> list[JobEvent]:
        """Events with `since <= at < until`, oldest first."""

    async def of_job(self, job_id: JobId) -> list[JobEvent]:
        """One job's flushed events, oldest first."""


class LogStore(Protocol):
    """What jobs logged: of each job the newest 500 lines and 64 KiB over all its runs. Best effort."""

    async def append(self, runs: Sequence[RunLog]) -> set[JobId]:
        """Keep lines of runs, if the fence is the job's or the run ended in order; lines of other runs, and of jobs
        that are gone, are dropped.

        The jobs whose lines could not be taken in at the moment, as somebody is about to change them: try again.
        Appending again what was appended changes nothing. What is too much of a job goes, oldest first, and is counted
        in `LogLine.skipped` of the line after it.
        """

    async def of_job(self, job_id: JobId, *, after: int = 0, limit: int = 500) -> list[LogLine]:
        """The lines of one job after the line of that `seq`, in order."""

    async def between(self, since: datetime, until: datetime, *, limit: int = 1_000) -> list[LogLine]:
        """The lines of all jobs with `since <= at < until`, oldest first."""


class MetricStore(Protocol):
    """Metrics by minute; their names are in `storage.types.metric`."""

    async def rollup(self) -> int:
        """Count the events of closed minutes, and how long runs waited and took, by queue and kind: of the last three
        minutes, and of those before that were missed. How many minutes with events that were.

        Again or twice at a time does no harm: a count is never lowered, not even when its events were deleted.
        """

    async def record(self, values: Mapping[str, Summary], *, host_id: str = "", minute: datetime | None = None) -> None:
        """Keep what was measured in a process, or with an empty host id in the store, in this minute or the present
        one. What it has of more values stays.

        Raises:
            InvalidInput: there is no such metric.
        """

    async def series(
        self,
        metric: str,
        since: datetime,
        until: datetime,
        *,
        bucket: timedelta = timedelta(minutes=1),
        queue: str | None = None,
        kind: str | None = None,
        host_id: str | None = None,
    ) -> list[Bucket]:
        """Minutes with `since <= minute < until`, oldest first, in buckets that begin at whole multiples of their
        width. A bucket without values is left out.

        Raises:
            InvalidInput: no such metric, a bucket that is not whole minutes, or more than 2 000 of them.
        """


class AuditStore(Protocol):
    """What people did."""

    async def list(self, *, limit: int = 50) -> list[AuditRow]:
        """The newest acts first."""

    async def page(
        self, *, limit: int = 50, cursor: str | None = None, actor: str | None = None, action: str | None = None
    ) -> AuditPage:
        """Part of the acts, of one person or one action where that is given, newest first."""


class MaintenanceStore(Protocol):
    """Upkeep of the store as a whole."""

    async def cleanup(
        self,
        *,
        queue: str | None = None,
        done_older_days: float | None = None,
        dead_older_days: float | None = None,
        actor: Actor | None = None,
    ) -> CleanupReport:
        """Remove what retention lets go, in batches of 100 that never hold the store for long.

        With `queue` only finished jobs of that queue. Days that are given take the place of the retention of queues.
        With an `actor` it is a person's act, and audited.
        """

    async def status(self) -> dict[str, Any]:
        """Version, durability, sizes and findings of the store, for `doctor` and `db status`."""

    async def backup(self, path: str) -> None:
        """A consistent copy into a new file, while workers run."""


class Storage(Protocol):
    """A store: the bundle of its parts, open between `open_storage` and `close`."""

    url: str
    """Where it is, with secrets masked."""
    clock: Clock
    observer: Observer
    """What this process did on the store: counts, histograms, hooks."""
    timings: Timings
    """How long this process's calls took."""

    @property
    def wakes_proven(self) -> bool:
        """Whether wakes of other processes have a way here that works at the moment; else workers poll at full rate."""

    @property
    def exchanges_at_once(self) -> int:
        """How many `settle_and_claim` of one process it serves well at the same time: 1 where writers take turns."""

    @property
    def jobs(self) -> JobStore: ...
    @property
    def queues(self) -> QueueStore: ...
    @property
    def processes(self) -> ProcessStore: ...
    @property
    def leases(self) -> LeaseStore: ...
    @property
    def shares(self) -> ShareStore: ...
    @property
    def rate_limits(self) -> RateLimitStore: ...
    @property
    def schedules(self) -> ScheduleStore: ...
    @property
    def events(self) -> EventStore: ...
    @property
    def logs(self) -> LogStore: ...
    @property
    def metrics(self) -> MetricStore: ...
    @property
    def audit(self) -> AuditStore: ...
    @property
    def maintenance(self) -> MaintenanceStore: ...

    def subscribe(self, host_id: str, on_wake: Callable[[frozenset[str] | None], None]) -> Callable[[], None]:
        """Call `on_wake` on the event loop when something may be ready: with queue names, or None for any.

        A hint, never the truth: wakes may be lost or spurious. Returns the way to unsubscribe.
        """

    def wake(self, queues: Sequence[str] | None = None) -> None:
        """Tell workers of all processes that something may be ready; with `CLUSTER` that the cluster changed."""

    async def close(self) -> None:
        """Flush what is buffered and release every connection and thread. Closing twice is harmless."""


__all__ = [
    "AuditStore", "BeatAnswer", "Claim", "ClaimRequest", "Claimed", "ErrorEntry", "EventStore", "Exchange",
    "Heart", "JobRow", "JobStore", "JobTransaction", "LeaseStore", "LogStore", "MaintenanceStore", "MetricStore",
    "ProcessStore", "QueueStore", "RateLimitStore", "ScheduleStore", "ShareStore", "Storage",
]  # fmt: skip
