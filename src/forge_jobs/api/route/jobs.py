"""`/jobs`: looking at jobs."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Query

from forge_jobs.api.answer import Download, Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.filter import job_filter
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page, PageQuery
from forge_jobs.api.model.job import EventPage, JobPage, JobsQuery, LogLine
from forge_jobs.api.model.job import JobDetail as JobDetailModel
from forge_jobs.ids import JobId
from forge_jobs.redact import redact_payload
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.job import JobDetail, JobOrder
from forge_jobs.view import job as view

router = api_router()
PAYLOAD_SHOWN: Final = 64 * 1024
CHILDREN_SHOWN: Final = 20
LOG_LINES: Final = 1_000
"""More than a job's log holds."""


@endpoint(router, "GET", "/jobs", role=Role.READ, answer=JobPage, tag="jobs")
async def list_jobs(call: Caller, asked: Annotated[JobsQuery, Query()]) -> Json:
    """List jobs.

    Newest enqueued first unless `order` says otherwise. `total` is the number of all that match. By queue and
    status, of more than 20 000 jobs, it is as it was some seconds ago. A search for text takes two seconds: what it has
    not counted by then is told as `total_at_least`, and a page that is not full by then has a cursor from where it goes
    on.
    """
    page = await call.storage.jobs.list_jobs(
        job_filter(call, asked),
        limit=asked.limit,
        cursor=asked.cursor,
        order=JobOrder(asked.order),
        counts=await call.storage.queues.recent_counts(),
    )
    return Json(view.job_page(page))


@endpoint(router, "GET", "/jobs/{id:job}", role=Role.READ, answer=JobDetailModel, tag="jobs")
async def show_job(call: Caller, id: str) -> Json:
    """Everything about one job."""
    detail = await find_job(call, id)
    timeline = await call.storage.events.of_job(detail.row.id)
    children, children_total = await call.storage.jobs.children(detail.row.id, limit=CHILDREN_SHOWN)
    shown = view.job_detail(detail, timeline)
    del shown["log"]  # which has a route of its own
    shown |= {
        **payload_text(detail.row.payload_text),
        "trace": detail.trace,
        "log_count": len(await call.storage.logs.of_job(detail.row.id, limit=LOG_LINES)),
        "children": [view.job_row(row) for row in children if call.identity.may_see(row.queue)],
        "children_total": children_total,
    }
    return Json(shown)


@endpoint(router, "GET", "/jobs/{id:job}/payload", role=Role.READ, media_type=Download, tag="jobs")
async def payload_of_job(call: Caller, id: str) -> Download:
    """The whole payload of a job as a file, with its secrets hidden."""
    row = (await find_job(call, id)).row
    return Download(redact_payload(row.payload_text), f"job-{row.id}.json")


@endpoint(router, "GET", "/jobs/{id:job}/events", role=Role.READ, answer=EventPage, tag="jobs")
async def events_of_job(call: Caller, id: str, asked: Annotated[PageQuery, Query()]) -> Json:
    """What happened to a job, oldest first.

    Events are written every two seconds, so the newest may still be on their way.
    """
    detail = await find_job(call, id)
    events = [view.event(one) for one in await call.storage.events.of_job(detail.row.id)]
    return Json(page_of(events, asked))


@endpoint(router, "GET", "/jobs/{id:job}/log", role=Role.READ, answer=Page[LogLine], tag="jobs")
async def log_of_job(call: Caller, id: str, asked: Annotated[PageQuery, Query()]) -> Json:
    """What a job logged, oldest first: the newest 500 lines over all its runs."""
    detail = await find_job(call, id)
    lines = await call.storage.logs.of_job(detail.row.id, limit=LOG_LINES)
    return Json(page_of([view.log_line(line) for line in lines], asked))


async def find_job(call: Call, id: str) -> JobDetail:
    """The job, if there is one that the caller may see.

    Raises:
        NotFound: there is not.
    """
    detail = await call.storage.jobs.get(JobId(id))
    if detail is None or not call.identity.may_see(detail.row.queue):
        raise NotFound(f"there is no job {id[:64]!r}")
    return detail


def payload_text(text: str) -> dict[str, Any]:
    """A payload with its secrets hidden, as text."""
    shown = redact_payload(text)
    return {"payload": shown[:PAYLOAD_SHOWN], "payload_bytes": len(text), "payload_cut": len(shown) > PAYLOAD_SHOWN}


def page_of(items: list[Any], asked: PageQuery) -> dict[str, Any]:
    """Part of a list that is at hand as a whole; the cursor is a position in it."""
    from forge_jobs.api.cursor import read_position, write_position

    start = read_position(asked.cursor)
    end = start + asked.limit
    return {
        "items": items[start:end],
        "next_cursor": write_position(end) if end < len(items) else None,
        "total": len(items),
        "total_at_least": None,
    }
