"""Who could take a job of a kind, and what keeps each of them from it.

The workers of the queue go through one sieve after the other; where none is left, the sieve has the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from forge_jobs import limits
from forge_jobs.clock import from_us
from forge_jobs.storage import bucket as buckets
from forge_jobs.storage.explain.facts import QueueFacts, Worker
from forge_jobs.storage.explain.words import at, count, names, span_us
from forge_jobs.storage.types.blocker import Blocker, BlockerCode
from forge_jobs.text import span

LONGEST_US: Final = limits.DELAY_S[1] * buckets.SECOND_US

PASSING: Final = frozenset({BlockerCode.POLL_MODE})
"""What is said of a job that is ready all the same."""


@dataclass(slots=True)
class Sieved:
    """The workers that are left for a kind, and why others are not. `paying` may claim jobs of the kind now."""

    paying: Sequence[Worker] = ()
    blockers: list[Blocker] = field(default_factory=list)

    @property
    def is_clear(self) -> bool:
        """Whether only free slots and the other jobs of the queue are left to ask."""
        return bool(self.paying) and all(one.code in PASSING for one in self.blockers)


def sieve(facts: QueueFacts, kind: str) -> Sieved:
    """What stands between a job of this kind that is due and an idle slot."""
    found = Sieved(blockers=blockers_of_settings(facts))
    settings = facts.settings
    sieves: list[tuple[Callable[[Worker], bool], Callable[[Sequence[Worker]], Blocker]]] = [
        (lambda _: True, lambda _: queue_unserved(facts)),
        (lambda w: kind in w.info.kinds or kind in w.info.closed_kinds, lambda w: _kind_unserved(w, kind)),
        (lambda w: kind not in w.info.closed_kinds, lambda w: _threads_abandoned(w, kind)),
        (lambda w: not w.cut_off, lambda w: _workers_fenced(w)),
        (lambda w: not w.info.quiet, lambda w: _workers_quiet(w)),
    ]
    if not settings.paused and settings.max_workers != 0:  # both close the slots
        sieves += [
            (lambda w: w.info.host_id not in settings.paused_processes, lambda w: _paused_there(facts, w)),
            (lambda w: w.slots > 0 and not w.is_draining, lambda w: _no_slots(w)),
        ]
    sieves += [
        (lambda w: _has_scope(facts, w, kind), lambda w: _scope_unknown(w, kind)),
        (lambda w: _affords(facts, w, kind), lambda w: _rate_limited(facts, w, kind)),
    ]
    left: Sequence[Worker] = facts.workers
    for passes, blocker in sieves:
        before, left = left, [worker for worker in left if passes(worker)]
        if not left:
            found.blockers.append(blocker(before))
            return found
    found.paying = left
    if not any(worker.info.wakes_proven for worker in left):
        found.blockers.append(_poll_mode(left))
    return found


def blockers_of_settings(facts: QueueFacts) -> list[Blocker]:
    """What keeps every job of the queue from being claimed, by whomever."""
    settings, found = facts.settings, list[Blocker]()
    queue = settings.name
    if settings.max_workers == 0:
        found.append(
            Blocker(
                code=BlockerCode.QUEUE_STOPPED,
                text=f"queue {queue} is stopped: its total of workers is 0.",
                since=settings.updated_at,
                remedy=f"forge-jobs queues set {queue} --max-workers 10, or none for no total",
            )
        )
    if settings.paused:
        by = f" by {settings.paused_by}" if settings.paused_by else ""
        since = f" since {at(settings.paused_at)}" if settings.paused_at else ""
        found.append(
            Blocker(
                code=BlockerCode.QUEUE_PAUSED,
                text=f"queue {queue} is paused{by}{since}.",
                since=settings.paused_at,
                remedy=f"forge-jobs queues resume {queue}",
            )
        )
    until = settings.throttled_until
    if until is not None and until > from_us(facts.now_us):
        found.append(
            Blocker(
                code=BlockerCode.QUEUE_COOLING_DOWN,
                text=f"queue {queue} cools down for {span(until - from_us(facts.now_us))} more, as an upstream asked "
                f"(event {settings.throttle_attempts} in a row).",
                until=until,
                remedy=f"wait, or forge-jobs queues clear-cool-down {queue}",
            )
        )
    return found


def queue_unserved(facts: QueueFacts) -> Blocker:
    queue, last = facts.settings.name, facts.last_served
    workers = facts.live_processes
    others = f"; {count(workers, 'live worker')} serve{'s' if workers == 1 else ''} other queues" if workers else ""
    if last is None:
        who = "; no worker that is remembered ever did"
    else:
        name = last.info.label or last.info.host_id
        who = f"; the last was {name} on {last.info.host_name}, silent since {at(last.heartbeat_at)}"
    return Blocker(
        code=BlockerCode.QUEUE_UNSERVED,
        text=f"no live worker serves queue {queue}{others}{who}.",
        since=None if last is None else last.heartbeat_at,
        remedy=f"start one: forge-jobs worker app:handlers --queues {queue}",
    )


def _kind_unserved(workers: Sequence[Worker], kind: str) -> Blocker:
    versions = sorted({worker.info.version for worker in workers})
    return Blocker(
        code=BlockerCode.KIND_UNSERVED,
        text=f"no live worker of the queue has a handler for kind {kind}; it is served by {called(workers)}, version "
        f"{names(versions)}.",
        remedy=f"deploy a handler for {kind}, or delete its jobs",
    )


def _threads_abandoned(workers: Sequence[Worker], kind: str) -> Blocker:
    return Blocker(
        code=BlockerCode.THREADS_ABANDONED,
        text=f"handlers that would not end made {called(workers)} stop taking kind {kind}.",
        remedy="restart the worker, and see in its log which handlers ignore their cancel or timeout",
    )


def _workers_fenced(workers: Sequence[Worker]) -> Blocker:
    return Blocker(
        code=BlockerCode.WORKERS_FENCED,
        text=f"{called(workers)} cannot reach the store in time, and so claim nothing.",
        remedy="see the workers' logs for beat_refused; they go on by themselves once the store answers",
    )


def _workers_quiet(workers: Sequence[Worker]) -> Blocker:
    host = min(worker.info.host_id for worker in workers)
    return Blocker(
        code=BlockerCode.WORKERS_QUIET,
        text=f"{called(workers)} {'was' if len(workers) == 1 else 'were'} asked by an operator to claim nothing more.",
        remedy=f"resume it on the dashboard's page of workers, or POST /api/v1/workers/{host}/resume; or start another",
    )


def _paused_there(facts: QueueFacts, workers: Sequence[Worker]) -> Blocker:
    queue = facts.settings.name
    hosts = sorted(worker.info.host_id for worker in workers)
    return Blocker(
        code=BlockerCode.QUEUE_PAUSED,
        text=f"queue {queue} is paused in every process that could take it: {names(hosts)}.",
        remedy=f'await storage.queues.resume("{queue}", process="{hosts[0]}"), and so for each',
    )


def called(workers: Sequence[Worker]) -> str:
    """What people call these workers."""
    return names([worker.name for worker in workers])


def _no_slots(workers: Sequence[Worker]) -> Blocker:
    if all(worker.is_draining for worker in workers):
        return Blocker(
            code=BlockerCode.NO_SLOTS,
            text=f"every worker that could take it is shutting down: {called(workers)}.",
            remedy="wait for the new ones, or start some",
        )
    without = [worker.name for worker in workers if worker.share == 0]
    if without:
        return Blocker(
            code=BlockerCode.NO_SLOTS,
            text=f"{names(without)} got no share of the queue's total of workers.",
            remedy="raise the total with forge-jobs queues set --max-workers, or stop a worker that has the share",
        )
    return Blocker(
        code=BlockerCode.NO_SLOTS,
        text=f"{called(workers)} have no slot open for the queue.",
        remedy="forge-jobs workers shows slots and shares; a total that was just changed is split within seconds",
    )


def _has_scope(facts: QueueFacts, worker: Worker, kind: str) -> bool:
    gate = worker.gate(kind)
    return gate is None or gate.scope in facts.buckets


def _affords(facts: QueueFacts, worker: Worker, kind: str) -> bool:
    gate = worker.gate(kind)
    return gate is None or facts.buckets[gate.scope].available >= gate.cost


def _scope_unknown(workers: Sequence[Worker], kind: str) -> Blocker:
    scopes = sorted({gate.scope for worker in workers if (gate := worker.gate(kind)) is not None})
    return Blocker(
        code=BlockerCode.RATE_SCOPE_UNKNOWN,
        text=f"kind {kind} is paid from rate limit {names(scopes)}, which does not exist.",
        remedy=f"forge-jobs limits add {scopes[0]}, or declare it in code",
    )


def _rate_limited(facts: QueueFacts, workers: Sequence[Worker], kind: str) -> Blocker:
    """Of the worker whose bucket pays first."""
    gates = [gate for worker in workers if (gate := worker.gate(kind)) is not None]
    gate = min(gates, key=lambda one: buckets.wait_us(facts.buckets[one.scope], one.cost))
    bucket = facts.buckets[gate.scope]
    holds = f"rate limit {gate.scope} holds {bucket.tokens:.4g} of {bucket.capacity:g} tokens"
    asks = f"kind {kind} costs {gate.cost:g}"
    tune = f"forge-jobs limits set {gate.scope}"
    if gate.cost > bucket.capacity:
        return Blocker(
            code=BlockerCode.RATE_LIMITED, text=f"{holds} and can never pay: {asks}.", remedy=f"{tune} --capacity"
        )
    wait = buckets.exact_wait_us(bucket, gate.cost)
    if wait is None or wait > LONGEST_US:
        text = f"{holds} and gains {'none' if wait is None else 'next to none'}: {asks}."
        return Blocker(code=BlockerCode.RATE_LIMITED, text=text, remedy=f"{tune} --refill")
    shut = f", and is shut for {span_us(bucket.blocked_us)} as its upstream asked" if bucket.blocked_us else ""
    return Blocker(
        code=BlockerCode.RATE_LIMITED,
        text=f"{holds}{shut}; {asks}, the next grant is in {span_us(wait)}.",
        until=from_us(facts.now_us + wait),
        remedy=f"wait, or {tune}",
    )


def _poll_mode(workers: Sequence[Worker]) -> Blocker:
    wait = timedelta(milliseconds=min(worker.info.poll_ms for worker in workers))
    return Blocker(
        code=BlockerCode.POLL_MODE,
        text=f"{called(workers)} are not told of new jobs: one may start up to {span(wait)} late.",
        remedy="forge-jobs doctor says why under notifications",
    )
