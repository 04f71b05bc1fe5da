"""Why the jobs of a queue stand still."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from forge_jobs.clock import from_us
from forge_jobs.storage.explain.facts import QueueFacts
from forge_jobs.storage.explain.job import slots_busy
from forge_jobs.storage.explain.words import count, span_us
from forge_jobs.storage.explain.workers import queue_unserved, sieve
from forge_jobs.storage.types.blocker import Blocker, BlockerCode, most_final_first

PER_CODE: Final = 10
"""Kinds that are named one by one; the rest are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits in a queue: the kinds with jobs that are due, when the next job falls due, and how many wait at all
    if the queue has a bound."""

    kinds: Sequence[str]
    next_due_us: int | None
    count: int | None


def unknown_queue(name: str) -> list[Blocker]:
    """What there is to say of a queue that nobody made."""
    return [
        Blocker(
            code=BlockerCode.UNKNOWN_QUEUE,
            text=f"there is no queue {name}: nothing was enqueued into it, and no worker serves it.",
            remedy="forge-jobs queues list shows those that are there",
        )
    ]


def queue_story(facts: QueueFacts, waiting: Waiting) -> list[Blocker]:
    """What stands in the way of the queue's jobs, taken together."""
    found: list[Blocker] = []
    most = facts.settings.max_pending
    if most is not None and waiting.count is not None and waiting.count >= most:
        found.append(
            Blocker(
                code=BlockerCode.QUEUE_FULL,
                text=f"it takes in no more jobs: {waiting.count} wait, and max_pending is {most}.",
                remedy=f"add workers, or forge-jobs queues set {facts.settings.name} --max-pending",
            )
        )
    by_code: defaultdict[BlockerCode, dict[str, Blocker]] = defaultdict(dict)
    moving = False
    for kind in waiting.kinds:
        sieved = sieve(facts, kind)
        for blocker in sieved.blockers:
            by_code[blocker.code][blocker.text] = blocker
        if sieved.is_clear and not any(worker.idle for worker in sieved.paying):
            busy = slots_busy(facts, sieved.paying)
            by_code[busy.code][busy.text] = busy
        moving = moving or sieved.is_clear
    if not waiting.kinds:
        found += _of_an_empty_queue(facts, waiting)
    for some in by_code.values():
        found += _first_of(list(some.values()))
    if waiting.kinds and moving:
        found.append(Blocker(code=BlockerCode.READY, text="jobs are due, and workers take them."))
    return most_final_first(found)


def _first_of(some: list[Blocker]) -> list[Blocker]:
    shown = some[:PER_CODE]
    if len(some) > PER_CODE:
        text = f"{shown[-1].text[:-1]}; so it is with {count(len(some) - PER_CODE, 'kind')} more."
        shown[-1] = replace(shown[-1], text=text)
    return shown


def _of_an_empty_queue(facts: QueueFacts, waiting: Waiting) -> list[Blocker]:
    found = sieve(facts, "").blockers if facts.workers else [queue_unserved(facts)]
    found = [one for one in found if one.code not in _OF_A_KIND]
    until = None if waiting.next_due_us is None else from_us(waiting.next_due_us)
    when = "" if until is None else f"; the next is due in {span_us(waiting.next_due_us - facts.now_us)}"  # type: ignore[operator]
    return [*found, Blocker(code=BlockerCode.IDLE, text=f"no job of it is due{when}.", until=until)]


_OF_A_KIND: Final = frozenset({BlockerCode.KIND_UNSERVED, BlockerCode.THREADS_ABANDONED})
