"""Jobs by queue and status. Finished ones, which may be millions, are counted once and then kept count of."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, TypeAlias

from forge_jobs.clock import from_us
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.storage.types.queue import QueueCounts

LIST_QUEUES = statement("list_queues")
COUNT_BY_QUEUE = statement("count_by_queue")
LOCK_FINISHED = statement("lock_finished")
FOLD_FINISHED = statement("fold_finished")
NEW_FINISHED = statement("new_finished")

MARGIN_US: Final = 120_000_000
"""No transaction lasts longer, so by then every job that ended earlier is there to be counted."""
Places: TypeAlias = defaultdict[str, int]
"""How many jobs of a queue stand where, and how many of those are due."""
FINISHED: Final = to_json([JobStatus.DONE, JobStatus.DEAD])


def read_counts(tx: Tx) -> dict[str, QueueCounts]:
    """See `QueueStore.counts`. One statement counts, so no job is seen at two places or at none."""
    found: dict[str, Places] = {row[0]: defaultdict(int) for row in tx.rows(LIST_QUEUES)}
    oldest: dict[str, int] = {}
    for queue, place, due, count, soonest in tx.rows(COUNT_BY_QUEUE, {"statuses": FINISHED}):
        places = found.setdefault(queue, defaultdict(int))
        places[place] += count
        places[f"{place}, due"] += due
        if due:
            oldest[queue] = min(soonest, oldest.get(queue, soonest))
    return {queue: _counts(places, oldest.get(queue)) for queue, places in found.items()}


def unfinished(counts: QueueCounts) -> int:
    """How many rows were counted one by one."""
    return counts.ready + counts.scheduled + counts.in_progress + counts.failed


def fold_finished(tx: Tx) -> None:
    """See `QueueStore.fold_counts`.

    A new row counts from the next time on: a job that is deleted meanwhile may not have seen it.
    """
    tx.rows(LOCK_FINISHED)
    tx.change(FOLD_FINISHED, {"until": tx.now_us - MARGIN_US})
    tx.change(NEW_FINISHED, {"statuses": FINISHED})


def _counts(places: Places, oldest_us: int | None) -> QueueCounts:
    pending, ready = places["waiting"] - places["failed"], places["waiting, due"] - places["failed, due"]
    return QueueCounts(
        ready=ready,
        scheduled=pending - ready,
        in_progress=places["in_progress"],
        failed=places["failed"],
        done=places["done"],
        dead=places["dead"],
        oldest_ready_at=None if oldest_us is None else from_us(oldest_us),
    )
