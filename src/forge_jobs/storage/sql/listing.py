"""Pages of jobs: by keyset, in three orders."""

from __future__ import annotations

import base64
import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, Final

from forge_jobs.ids import JobId, parse_id
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.counts import read_counts
from forge_jobs.storage.sql.driver import Row, Tx
from forge_jobs.storage.sql.rows import filter_params, job_row, to_json
from forge_jobs.storage.sql.search import ABOVE_ALL, BELOW_ALL, COUNT_JOBS, LIST_JOBS, Found, Read, Search
from forge_jobs.storage.types.job import JobFilter, JobOrder, JobStatus, Page
from forge_jobs.storage.types.queue import QueueCounts

LIST_FINISHED = statement("list_finished")
LIST_FUTURE = statement("list_future")
LIST_DUE = statement("list_due")
LIST_DUE_ALONE = statement("list_due_alone")
LIST_FAILED = statement("list_failed")
DUE_BANDS = statement("due_bands")
LIST_QUEUES = statement("list_queues")

_STATUSES: Final[Mapping[JobOrder, tuple[JobStatus, ...]]] = {
    JobOrder.SCHEDULED: (JobStatus.PENDING, JobStatus.FAILED),
    JobOrder.FUTURE: (JobStatus.PENDING,),
    JobOrder.COMPLETED: (JobStatus.DONE, JobStatus.DEAD),
}
"""Which jobs an order is of."""
_BEFORE_ALL: Final[Mapping[str, Any]] = {"at": -(2**63), "before": ""}
"""A place before every job."""
_COUNTED: Final = frozenset({"queues", "statuses"})
_SCHEDULED_AT, _COMPLETED_AT = 11, 14
"""Their places in a row."""


@dataclass(frozen=True, slots=True)
class Place:
    """Behind which job a page begins. `at` is what the order goes by, null where ids are all."""

    id: JobId
    at: int | None = None


def list_page(
    tx: Tx,
    chosen: JobFilter,
    order: JobOrder,
    limit: int,
    after: Place | None,
    with_total: bool,
    counts: Mapping[str, QueueCounts] | None,
) -> Page:
    """One page, and the true total if it is asked for: by `counts`, where it follows from them."""
    asked, params = chosen, filter_params(chosen)
    if order is JobOrder.NEWEST:
        before = ABOVE_ALL if after is None else after.id
        rows = tx.rows(LIST_JOBS, {**params, "before": before, "after": BELOW_ALL, "limit": limit + 1})
    else:
        chosen = _of_order(chosen, order)
        params = filter_params(chosen)
        rows = _merged(tx, chosen, params, order, limit + 1, after)
    items = tuple(job_row(row) for row in rows[:limit])
    more = write_cursor(asked, order, rows[limit - 1]) if len(rows) > limit else None
    total = _total(tx, chosen, order, counts) if with_total else None
    return Page(items=items, next_cursor=more, total=total)


async def search_page(
    read: Read, chosen: JobFilter, order: JobOrder, limit: int, after: Place | None, *, with_total: bool
) -> Page:
    """One page of a search for text, as far as it comes in its time; see `JobStore.list_jobs`.

    Where the order is that of an index, the page is read from that in one go, and only the count has to be in time.
    """
    counting = chosen if order is JobOrder.NEWEST else _of_order(chosen, order)
    search = Search(read, counting)
    if order is JobOrder.NEWEST:
        start = ABOVE_ALL if after is None else after.id
        found = await search.page(start, limit + 1)
        more = _cursor_of_search(chosen, found, limit)
        page = Page(items=tuple(job_row(row) for row in found.rows[:limit]), next_cursor=more, total=None)
        if after is None and more is None:  # that was all
            return replace(page, total=len(found.rows) if with_total else None)
    else:
        page = await read(lambda tx: list_page(tx, chosen, order, limit, after, False, None))
    if not with_total:
        return page
    counted = await search.count()
    if counted.whole and order is not JobOrder.FUTURE:
        return replace(page, total=counted.total)
    return page if order is JobOrder.FUTURE else replace(page, total_at_least=max(counted.total, len(page.items)))


def _cursor_of_search(chosen: JobFilter, found: Found, limit: int) -> str | None:
    if len(found.rows) > limit:
        return write_cursor(chosen, JobOrder.NEWEST, found.rows[limit - 1])
    return None if found.stopped_at is None else write_cursor(chosen, JobOrder.NEWEST, (found.stopped_at,))


def _total(tx: Tx, chosen: JobFilter, order: JobOrder, counts: Mapping[str, QueueCounts] | None) -> int | None:
    """How many jobs the list has. Future ones are counted by queue; with any other filter nobody counts them."""
    if order is not JobOrder.FUTURE:
        return sum(count_by_status(tx, chosen, counts).values())
    if chosen.statuses and replace(chosen, queues=None, statuses=None).is_everything:
        counts = read_counts(tx) if counts is None else counts
        return sum(own.scheduled for queue, own in counts.items() if chosen.queues is None or queue in chosen.queues)
    return 0 if not chosen.statuses else None


def count_by_status(tx: Tx, chosen: JobFilter, counts: Mapping[str, QueueCounts] | None = None) -> dict[str, int]:
    """How many jobs there are. What is chosen by queue and status alone is not counted anew."""
    given = {f.name for f in fields(chosen) if getattr(chosen, f.name) is not None}
    if not given <= _COUNTED:
        return dict(tx.rows(COUNT_JOBS, {**filter_params(chosen), "before": ABOVE_ALL, "after": BELOW_ALL}))
    totals: dict[str, int] = {}
    for queue, own in (read_counts(tx) if counts is None else counts).items():
        if chosen.queues is None or queue in chosen.queues:
            for status in JobStatus:
                if chosen.statuses is None or status in chosen.statuses:
                    totals[status.value] = totals.get(status.value, 0) + _of_status(own, status)
    return {status: count for status, count in totals.items() if count}


def read_cursor(cursor: str | None, chosen: JobFilter, order: JobOrder) -> Place | None:
    """Where a cursor points.

    Raises:
        InvalidInput: it is not one of ours, or of another list.
    """
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        version, mark, at, job_id = text.split(":")
        if version == "j2" and mark == _mark(chosen, order) and len(at) < 20 and (not at or at.isdigit()):
            return Place(parse_id(job_id), int(at) if at else None)
    except (ValueError, InvalidInput):
        pass
    raise InvalidInput(
        f"cursor {ascii(cursor)[:80]} is not one of this list; begin anew without it",
        field="cursor",
        reason="invalid_cursor",
    )


def write_cursor(chosen: JobFilter, order: JobOrder, row: Row) -> str:
    """A cursor that goes on behind this row, in this list alone."""
    at = "" if order is JobOrder.NEWEST else row[_COMPLETED_AT if order is JobOrder.COMPLETED else _SCHEDULED_AT]
    text = f"j2:{_mark(chosen, order)}:{at}:{row[0]}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _of_order(chosen: JobFilter, order: JobOrder) -> JobFilter:
    """`chosen`, of the statuses that the order is of."""
    legal = [status.value for status in _STATUSES[order]]
    asked = legal if chosen.statuses is None else [status for status in legal if status in chosen.statuses]
    return replace(chosen, statuses=tuple(asked))


def _merged(
    tx: Tx, chosen: JobFilter, params: dict[str, Any], order: JobOrder, limit: int, after: Place | None
) -> list[Row]:
    """The heads of every queue and status, each in its index's order, merged: so a page costs what it shows, however
    many jobs there are."""
    if not chosen.statuses:
        return []
    queues = [row[0] for row in tx.rows(LIST_QUEUES)] if chosen.queues is None else list(dict.fromkeys(chosen.queues))
    more = {**params, "limit": limit, "at": after and after.at, "before": after and after.id}
    if order is JobOrder.COMPLETED:
        each = [{"queue": queue, "status": status} for queue in queues for status in chosen.statuses]
        heads = [tx.rows(LIST_FINISHED, {**more, **one}) for one in each]
        return list(islice(heapq.merge(*heads, key=_latest, reverse=True), limit))
    due = order is JobOrder.SCHEDULED and JobStatus.PENDING in chosen.statuses
    names = (LIST_FUTURE, LIST_DUE_ALONE) if due else (LIST_FUTURE,) if order is JobOrder.FUTURE else (LIST_FAILED,)
    heads = [tx.rows(name, {**more, "queue": queue}) for queue in queues for name in names]
    found = list(islice(heapq.merge(*heads, key=_soonest), limit))
    return _with_due(tx, found, queues, more) if due else found


def _with_due(tx: Tx, found: list[Row], queues: list[str], params: Mapping[str, Any]) -> list[Row]:
    """The first of `found` and of the jobs that are due, which stand in bands by queue, kind and priority.

    A band is read only if its first job may be on the page, so at most as many are as the page has jobs.
    """
    place = _BEFORE_ALL if params["at"] is None else {}
    bands = [(*row, queue) for queue in queues for row in tx.rows(DUE_BANDS, {**params, **place, "queue": queue})]
    for at, job_id, kind, priority, queue in sorted(bands):
        if len(found) == params["limit"] and (at, job_id) > _soonest(found[-1]):
            break
        rows = tx.rows(LIST_DUE, {**params, "queue": queue, "kind": kind, "priority": priority})
        found = list(islice(heapq.merge(found, rows, key=_soonest), params["limit"]))
    return found


def _soonest(row: Row) -> tuple[int, str]:
    return row[_SCHEDULED_AT], row[0]


def _latest(row: Row) -> tuple[int, str]:
    return row[_COMPLETED_AT], row[0]


def _of_status(counts: QueueCounts, status: JobStatus) -> int:
    return counts.ready + counts.scheduled if status is JobStatus.PENDING else int(getattr(counts, status.value))


def _mark(chosen: JobFilter, order: JobOrder) -> str:
    """A list's identity."""
    params = {key: value for key, value in filter_params(chosen).items() if value is not None}
    return hashlib.sha256(to_json([order.value, params]).encode()).hexdigest()[:12]
