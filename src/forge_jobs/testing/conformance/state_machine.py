"""Random histories of a store, checked after every step against a model made of dictionaries.

Workers claim, beat, finish, forget their jobs and finish them too late; people pause, cancel, retry and delete;
the reaper, the expiry sweep and retention pass by; time passes, the wall clock is set, the host reboots, the
store is closed and opened again. After each step every row, queue and event must be what the model says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from forge_jobs.clock import ManualClock, to_us
from forge_jobs.ids import JobId
from forge_jobs.storage.error import DedupeConflict, IdReused
from forge_jobs.storage.protocol import Claim, ClaimRequest, Storage
from forge_jobs.storage.types.answers import NotRetryable, Retried, RetryOutcome, SlotHeld
from forge_jobs.storage.types.finalize import (
    Applied,
    Done,
    Finalize,
    FinalizeOutcome,
    Lost,
    Released,
    Settled,
    Throttled,
)
from forge_jobs.storage.types.job import Deduped, Enqueued, EnqueueOutcome, EnqueueRequest, JobFilter, JobRecord
from forge_jobs.storage.types.process import Claimed
from forge_jobs.testing.conformance.arrange import EVER, UNSHRUNK
from forge_jobs.testing.conformance.backend import Backend
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.conformance.model import MAX_CRASHES, STALE_US, Held, Model, Wish, shown, window
from forge_jobs.testing.factories import (
    HOST,
    OTHER_HOST,
    make_claim,
    make_crashed,
    make_dead,
    make_failed,
    make_process,
    make_throttled,
)

T = TypeVar("T")

QUEUES: Final = ("alpha", "beta")
KINDS: Final = tuple(MAX_CRASHES)
HOSTS: Final = (HOST, OTHER_HOST)
PAGE: Final = 1_000

picks = st.integers(0, 7)
queues = st.sampled_from(QUEUES)
hosts = st.sampled_from(HOSTS)
some_kinds = st.sampled_from([KINDS, KINDS, *((kind,) for kind in KINDS)])
outcomes = st.sampled_from(
    ["done", "done", "failed", "failed at once", "dead", "throttled", "throttled long", "throttled guess",
     "throttled alone", "released", "crashed", "crashed at once"]
)  # fmt: skip
batch_outcomes = st.one_of(st.just("done"), outcomes)
wishes = st.fixed_dictionaries(
    {
        "queue": queues,
        "kind": st.sampled_from(KINDS),
        "priority": st.sampled_from([0, 0, 0, -5, 5]),
        "delay": st.sampled_from([0, 0, 0, 0, 3, 40]),
        "ttl": st.sampled_from([None, None, None, None, 20, 90]),
        "max_attempts": st.sampled_from([1, 2, 5]),
        "key": st.sampled_from([None, None, "k1", "k2"]),
        "policy": st.sampled_from(["skip", "skip", "replace", "error"]),
    }
)


class LifecycleMachine(RuleBasedStateMachine):
    """One random history. A subclass names the `backend`."""

    backend: ClassVar[Backend]

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.model = Model(self.clock, QUEUES)
        self.claims: list[tuple[str, int]] = []
        self.records: dict[tuple[str, int], JobRecord] = {}
        self.claimed_by: dict[tuple[str, int], str] = {}
        self.known: list[Wish] = []
        self.is_a_week_old = False
        self.loop = asyncio.new_event_loop()
        self.storage = self._open(self.backend.open(self.clock))

    def teardown(self) -> None:
        try:
            self._histories_agree()
        finally:
            self._close()
            self.loop.close()

    @initialize(first=st.lists(wishes, min_size=3, max_size=6))
    def begin(self, first: list[dict[str, Any]]) -> None:
        for name in QUEUES:
            self._do(self.storage.queues.ensure(name))
        for fields in first:
            self.enqueue(fields)

    # People and programs add jobs.

    @rule(fields=wishes)
    def enqueue(self, fields: dict[str, Any]) -> None:
        self._enqueue(self._wish(fields))

    @rule(fields=st.lists(wishes, min_size=1, max_size=5))
    def enqueue_bulk(self, fields: list[dict[str, Any]]) -> None:
        wished = [self._wish(one) for one in fields]
        requests = [_request(wish) for wish in wished]
        if any(wish.policy == "error" and self.model.holder(wish.key) for wish in wished) or _conflicts(wished):
            with pytest.raises(DedupeConflict):
                self._do(self.storage.jobs.enqueue_bulk(requests))
            return
        answers = self._do(self.storage.jobs.enqueue_bulk(requests))
        assert [_said(answer) for answer in answers] == [self.model.enqueue(wish) for wish in wished]

    @rule(pick=picks, same=st.booleans())
    def enqueue_under_a_used_id(self, pick: int, same: bool) -> None:
        wish = self.known[-1 - pick % len(self.known)]
        if same:
            self._enqueue(wish)
        elif wish.job_id in self.model.jobs:
            with pytest.raises(IdReused):
                self._do(self.storage.jobs.enqueue(EnqueueRequest("other", queue=wish.queue, id=wish.job_id)))

    # Workers claim, beat and finish, or forget.

    @precondition(lambda self: self.model.any_ready())
    @rule(pick=picks, host=hosts, limit=st.integers(1, 4))
    def claim(self, pick: int, host: str, limit: int) -> None:
        ready = self.model.any_ready()
        job = ready[pick % len(ready)]
        request = make_claim(limit, queue=job.wish.queue, kinds=KINDS, host_id=host, alone=job.alone)
        self._claimed(request, self._do(self.storage.jobs.claim(request)))

    @precondition(lambda self: self.model.any_ready())
    @rule(pick=picks, host=hosts, outcome=outcomes)
    def run_a_job(self, pick: int, host: str, outcome: str) -> None:
        self.claim(pick, host, 1)
        self._settle(0, outcome)

    @precondition(lambda self: self._running())
    @rule(pick=picks, outcome=outcomes)
    def finish_a_running_job(self, pick: int, outcome: str) -> None:
        running = self._running()
        self._settle(running[pick % len(running)], outcome)

    @precondition(lambda self: self._running())
    @rule(finish=st.lists(outcomes, min_size=1, max_size=3))
    def finish_every_running_job(self, finish: list[str]) -> None:
        """One after the other, as when an upstream refuses many at once."""
        for n, (job_id, fence) in enumerate(list(self.claims)):
            if self._owns(job_id, fence):
                self._settle(len(self.claims) - 1 - n, finish[n % len(finish)])

    @precondition(lambda self: self.model.held_back())
    @rule(pick=picks, host=hosts)
    def claim_in_vain(self, pick: int, host: str) -> None:
        """Nothing comes from a queue that is paused or cools down, though jobs of it are due."""
        held_back = self.model.held_back()
        request = make_claim(4, queue=held_back[pick % len(held_back)], kinds=KINDS, host_id=host)
        claim = self._do(self.storage.jobs.claim(request))
        assert (claim.jobs, claim.alone_waiting) == ((), False)

    @precondition(lambda self: self.claims)
    @rule(pick=picks, outcome=outcomes)
    def finish_late(self, pick: int, outcome: str) -> None:
        """Any claim of the past, settled or lost or current."""
        self._settle(pick, outcome)

    @rule(
        current=st.lists(st.tuples(picks, batch_outcomes), max_size=4),
        past=st.lists(st.tuples(picks, outcomes), max_size=1),
        wanted=st.lists(st.tuples(queues, some_kinds, hosts, st.integers(1, 3), st.booleans()), max_size=2),
    )
    def settle_and_claim(
        self,
        current: list[tuple[int, str]],
        past: list[tuple[int, str]],
        wanted: list[tuple[str, tuple[str, ...], str, int, bool]],
    ) -> None:
        running = self._running()
        finished = [(running[pick % len(running)], outcome) for pick, outcome in current if running]
        settlements = self._batch(finished + (past if self.claims else []))
        requests = [
            make_claim(limit, queue=queue, kinds=kinds, host_id=host, alone=alone)
            for queue, kinds, host, limit, alone in wanted
        ]
        exchange = self._do(self.storage.jobs.settle_and_claim(settlements, requests))
        for finalize, answer in zip(settlements, exchange.settled, strict=True):
            self._settled(finalize, answer)
        for request, claim in zip(requests, exchange.claims, strict=True):
            self._claimed(request, claim)

    @precondition(lambda self: self.claims)
    @rule(host=hosts, left_out=st.sampled_from([0, 0, 0, 1, 2]))
    def beat(self, host: str, left_out: int) -> None:
        """A worker beats for the claims that it has not settled, its lost ones too; a forgotten claim is left out."""
        mine = [claim for claim in self.claims if self.claimed_by[claim] == host]
        mine = [claim for claim in mine if self._owns(*claim) or self._lost(*claim)]
        named = mine[left_out:]
        answer = self.beater.beat_and_wait(make_process(host), *(Claimed(JobId(i), fence) for i, fence in named))
        lost, asked, strays = self.model.beat(host, named)
        assert {(claim.job_id, claim.fence) for claim in answer.lost} == lost
        assert answer.cancel_requested >= asked
        assert {(claim.job_id, claim.fence) for claim in answer.strays} == strays

    # The sweeps pass by.

    @precondition(lambda self: self._running())
    @rule(silence=st.sampled_from([0, 20, 31, 31]), reboot=st.booleans())
    def reap(self, silence: int, reboot: bool) -> None:
        self.clock.advance(silence)
        if reboot and not silence and self.backend.one_host:
            self.clock.reboot()
        stale = {job.id: job for job in self.model.stale()}
        revived = self._do(
            self.storage.jobs.revive_stale(timedelta(microseconds=STALE_US), max_crashes=MAX_CRASHES.__getitem__)
        )
        assert sorted(one.job_id for one in revived) == sorted(stale)
        rows = self._rows()
        for one in revived:
            job = stale[one.job_id]
            delay = to_us(rows[one.job_id].scheduled_at) - self.model.now if one.status == "failed" else 0
            low, high = (0, 0) if job.crashes == 0 else (4_500_000, 5_500_000)
            assert one.status == "dead" or low <= delay <= high, f"due again after {delay} µs"
            self.model.revive(job, delay)
            assert (one.status, one.dead_reason) == (job.status, job.dead_reason)

    @rule(after_a_week=st.sampled_from([False, False, True]))
    def sweep(self, after_a_week: bool) -> None:
        """The week passes once in a history: how long the events of an old job are kept is left to the backend."""
        if after_a_week and not self.is_a_week_old:
            self.is_a_week_old = True
            self.clock.advance("8d")
        assert self._do(self.storage.jobs.expire_due()) == self.model.expire()
        report = self._do(self.storage.maintenance.cleanup())
        assert (report.done, report.dead) == self.model.cleanup()

    # People mend things.

    @rule(act=st.sampled_from(["cancel", "cancel", "delete", "retry", "retry", "run_now"]), pick=picks)
    def mend(self, act: str, pick: int) -> None:
        job_id = JobId(self.known[-1 - pick % len(self.known)].job_id)
        match act:
            case "cancel":
                assert self._do(self.storage.jobs.cancel(job_id)) == self.model.cancel(job_id)
            case "delete":
                assert self._do(self.storage.jobs.delete(job_id)) == self.model.delete(job_id)
            case "retry":
                assert _retried(self._do(self.storage.jobs.retry(job_id))) == self.model.retry(job_id)
            case _:
                assert self._do(self.storage.jobs.run_now(job_id)) is self.model.run_now(job_id)

    @precondition(lambda self: self._running())
    @rule(pick=picks)
    def cancel_a_running_job(self, pick: int) -> None:
        running = self._running()
        job_id = JobId(self.claims[-1 - running[pick % len(running)]][0])
        assert self._do(self.storage.jobs.cancel(job_id)) == self.model.cancel(job_id)

    @rule(act=st.sampled_from(["pause", "resume", "resume", "clear", "clear", "retry all"]), queue=queues)
    def tend_a_queue(self, act: str, queue: str) -> None:
        of_model = self.model.queues[queue]
        match act:
            case "pause":
                assert self._do(self.storage.queues.pause(queue)) is not of_model.paused
                of_model.paused = True
            case "resume":
                assert self._do(self.storage.queues.resume(queue)) is of_model.paused
                of_model.paused = False
            case "clear":
                self._do(self.storage.queues.clear_cool_down(queue))
                of_model.throttle_attempts, of_model.throttled_until = 0, None
            case _:
                self._retry_all(queue)

    # Time passes, and things go wrong with it.

    @rule(seconds=st.sampled_from([1, 5, 60, 60, 130, 400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: not self.model.any_ready())
    @rule()
    def work_goes_on(self) -> None:
        """Nothing is ready: what was stopped is let go, and time passes until the retries are due."""
        for queue in QUEUES:
            self.tend_a_queue("resume", queue)
        self.clock.advance(100)

    @rule(trouble=st.sampled_from(["step", "leap", "reopen"]))
    def something_odd_happens(self, trouble: str) -> None:
        match trouble:
            case "step":
                self.clock.step(-60)
            case "leap":
                self.clock.step(3600)
            case _:
                self._close()
                self.storage = self._open(self.backend.reopen(self.clock))

    # What holds after every step.

    @invariant()
    def rows_are_the_models(self) -> None:
        assert {job_id: shown(row) for job_id, row in self._rows().items()} == self.model.rows()

    @invariant()
    def queues_are_the_models(self) -> None:
        known = {queue.name: window(queue) for queue in self._do(self.storage.queues.list())}
        assert not known or known == self.model.windows()

    @invariant()
    def a_job_has_a_dead_reason_exactly_when_it_is_dead(self) -> None:
        assert all((row.dead_reason is not None) == (row.status == "dead") for row in self._rows().values())

    @invariant()
    def no_two_unfinished_jobs_share_a_key(self) -> None:
        held = [
            row.dedupe_key for row in self._rows().values() if row.status not in ("done", "dead") and row.dedupe_key
        ]
        assert len(held) == len(set(held))

    @invariant()
    def events_add_up(self) -> None:
        self._do(self.storage.events.flush())
        told = self._do(self.storage.events.timeline(*EVER, limit=PAGE))
        assert len(told) < PAGE, "the machine tells more events than a page holds"
        assert Counter((event.job_id, event.type) for event in told) == self.model.events()
        waiting_deaths = sum(event.type == "failed" and event.duration_us is None for event in told)
        types = Counter(event.type for event in told)
        ended = types["completed"] + types["failed"] - waiting_deaths + types["retried"] + types["released"]
        assert types["started"] - ended == sum(job.is_running for job in self.model.jobs.values())

    @invariant()
    def counts_agree_with_the_rows(self) -> None:
        counts = self._do(self.storage.jobs.count(JobFilter()))
        assert +Counter(counts) == Counter(job.status for job in self.model.jobs.values())
        for queue, of_queue in self._do(self.storage.queues.counts()).items():
            of_model = Counter(job.status for job in self.model.jobs.values() if job.wish.queue == queue)
            assert of_queue.ready + of_queue.scheduled == of_model["pending"]
            assert (of_queue.in_progress, of_queue.failed) == (of_model["in_progress"], of_model["failed"])
            assert (of_queue.done, of_queue.dead) == (of_model["done"], of_model["dead"])

    # How rules speak with the store.

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def _open(self, context: AbstractAsyncContextManager[Storage]) -> Storage:
        self._context = context
        storage = self._do(context.__aenter__())
        self.beater = Beater(storage)
        return storage

    def _close(self) -> None:
        self.beater.close()
        self._do(self._context.__aexit__(None, None, None))

    def _rows(self) -> dict[JobId, Any]:
        page = self._do(self.storage.jobs.list_jobs(JobFilter(), limit=PAGE))
        assert (page.total, page.next_cursor) == (len(page.items), None)
        return {row.id: row for row in page.items}

    def _wish(self, fields: dict[str, Any]) -> Wish:
        wish = Wish(job_id=f"01J{len(self.known):023d}", **fields)
        self.known.append(wish)
        return wish

    def _enqueue(self, wish: Wish) -> None:
        try:
            expected = self.model.enqueue(wish)
        except Held as held:
            with pytest.raises(DedupeConflict) as caught:
                self._do(self.storage.jobs.enqueue(_request(wish)))
            assert caught.value.existing_id == held.args[0]
            return
        assert _said(self._do(self.storage.jobs.enqueue(_request(wish)))) == expected

    def _running(self) -> list[int]:
        """The claims that are current, as picks."""
        return [pick for pick in range(len(self.claims)) if self._owns(*self.claims[-1 - pick])]

    def _settle(self, pick: int, outcome: str) -> None:
        finalize = self._finalize(pick, outcome)
        answer = self._do(self.storage.jobs.finalize(finalize.job_id, finalize.fence, finalize.outcome))
        self._settled(finalize, answer)

    def _retry_all(self, queue: str) -> None:
        """Of several dead jobs with one key the first by id is retried."""
        report = self._do(self.storage.jobs.act_on("retry", JobFilter(queues=(queue,))))
        chosen = sorted(job.id for job in self.model.jobs.values() if job.wish.queue == queue)
        changed = sum(self.model.retry(job_id) == ("retried", None) for job_id in chosen)
        assert (report.changed, sum(report.skipped.values())) == (changed, len(chosen) - changed)

    def _owns(self, job_id: str, fence: int) -> bool:
        job = self.model.jobs.get(job_id)
        return job is not None and job.is_running and job.fence == fence

    def _lost(self, job_id: str, fence: int) -> bool:
        job = self.model.jobs.get(job_id)
        return job is None or job.fence != fence

    def _finalize(self, pick: int, outcome: str) -> Finalize:
        job_id, fence = self.claims[-1 - pick % len(self.claims)]
        job = self.model.jobs.get(job_id)
        max_crashes = MAX_CRASHES[job.wish.kind] if job is not None else 3
        # Whether the throttle of a job that is asked to stop cools its queue down is left to the backend.
        cool_down = job is None or job.cancel_requested is None
        made: dict[str, FinalizeOutcome] = {
            "done": Done(),
            "failed": make_failed(delay=60),
            "failed at once": make_failed(delay=0),
            "dead": make_dead(),
            "throttled": make_throttled(7, cool_down=cool_down),
            "throttled long": make_throttled(90, cool_down=cool_down),
            "throttled guess": make_throttled(60, hinted=False, cool_down=cool_down),
            "throttled alone": make_throttled(5, cool_down=False),
            "released": Released(),
            "crashed": make_crashed(delay=5, max_crashes=max_crashes),
            "crashed at once": make_crashed(max_crashes=max_crashes),
        }
        return Finalize(JobId(job_id), fence, made[outcome])

    def _batch(self, finished: list[tuple[int, str]]) -> list[Finalize]:
        """One finalize for each claim, with the record of the claim at hand.

        The outcomes of a batch have no order among themselves, so none is made that would show one: a success
        may forget a cool-down and a throttle open one, but not both in the same batch.
        """
        made: dict[tuple[str, int], Finalize] = {}
        for pick, outcome in finished:
            finalize = self._finalize(pick, outcome)
            claim = finalize.job_id, finalize.fence
            made[claim] = Finalize(finalize.job_id, finalize.fence, finalize.outcome, self.records[claim])
        if any(isinstance(one.outcome, Done) for one in made.values()):
            return [one for one in made.values() if not isinstance(one.outcome, Throttled) or not one.outcome.cool_down]
        return list(made.values())

    def _settled(self, finalize: Finalize, answer: Settled) -> None:
        expected = self.model.settle(finalize.job_id, finalize.fence, finalize.outcome)
        assert _settlement(answer) == expected
        if isinstance(answer, Applied):
            job = self.model.jobs[finalize.job_id]
            assert (answer.status, answer.dead_reason) == (job.status, job.dead_reason)

    def _claimed(self, request: ClaimRequest, claim: Claim) -> None:
        expected = self.model.claim(request.queue, request.kinds, request.host_id, request.slots, request.alone)
        assert [job.id for job in claim.jobs] == expected
        for job in claim.jobs:
            known = self.model.jobs[job.id]
            assert (job.fence, job.attempts, job.crashes) == (known.fence, known.attempts, known.crashes)
            self.claims.append((job.id, job.fence))
            self.records[job.id, job.fence] = job
            self.claimed_by[job.id, job.fence] = request.host_id
        if not request.alone:
            assert claim.more is (len(claim.jobs) == request.limit)
            assert claim.alone_waiting is any(job.alone for job in self.model.ready(request.queue, request.kinds))

    def _histories_agree(self) -> None:
        for job in self.model.jobs.values():
            detail = self._do(self.storage.jobs.get(JobId(job.id)))
            assert detail is not None
            assert [entry.kind_of_error for entry in detail.history] == job.errors[-32:]


class TestStateMachine:
    """The machine on the backend under test: the same short histories in every run, and long new ones when asked."""

    def test_random_histories_agree_with_the_model(self, backend: Backend) -> None:
        examples = 60 if backend.one_host else 15
        _run(backend, settings(max_examples=examples, stateful_step_count=40, derandomize=True, phases=UNSHRUNK))

    @pytest.mark.slow
    @pytest.mark.timeout(1_800)
    def test_long_random_histories_agree_with_the_model(self, backend: Backend) -> None:
        _run(backend, settings(max_examples=600, stateful_step_count=100, print_blob=True))


def _run(backend: Backend, profile: settings) -> None:
    machine = type("Lifecycle", (LifecycleMachine,), {"backend": backend})
    run_state_machine_as_test(
        machine, settings=settings(profile, deadline=None, suppress_health_check=list(HealthCheck))
    )


def _conflicts(wished: list[Wish]) -> bool:
    """Whether a request that wants an error follows one with the same key in the same bulk."""
    seen: set[str] = set()
    for wish in wished:
        if wish.policy == "error" and wish.key in seen:
            return True
        if wish.key is not None:
            seen.add(wish.key)
    return False


def _request(wish: Wish) -> EnqueueRequest:
    return EnqueueRequest(
        wish.kind, {"of": wish.job_id}, queue=wish.queue, id=wish.job_id, priority=wish.priority, delay=wish.delay,
        ttl=wish.ttl, max_attempts=wish.max_attempts, dedupe_key=wish.key, on_conflict=wish.policy,  # type: ignore[arg-type]
    )  # fmt: skip


def _said(answer: EnqueueOutcome) -> tuple[str, str, str | None]:
    match answer:
        case Enqueued(id=job_id, repeated=repeated):
            return "repeated" if repeated else "enqueued", job_id, None
        case Deduped(id=job_id, status=status):
            return "deduped", job_id, status.value


def _settlement(answer: Settled) -> str:
    return "applied" if isinstance(answer, Applied) else "lost" if isinstance(answer, Lost) else "repeated"


def _retried(answer: RetryOutcome) -> tuple[str, str | None]:
    match answer:
        case Retried():
            return "retried", None
        case SlotHeld(holder=holder):
            return "held", holder
        case NotRetryable(status=status):
            return "refused", status
