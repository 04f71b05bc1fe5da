"""Acts on many jobs."""

from __future__ import annotations

from typing import Any, Final

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.filter import job_filter
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page
from forge_jobs.api.model.job import ActionsBody, FilterBody, PreviewAnswer, PreviewBody
from forge_jobs.api.model.job import Operation as OperationModel
from forge_jobs.api.operations import Operation
from forge_jobs.api.problem import Problem, invalid
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.request import check_pace
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.view.job import job_row

router = api_router()
SAMPLE: Final = 10
TOLERANCE: Final = 10
"""So many jobs may have come or gone since the preview, or one in a hundred."""


@endpoint(router, "POST", "/jobs/actions/preview", role=Role.READ, answer=PreviewAnswer, tag="jobs", changes=False)
async def preview_action(call: Caller, body: PreviewBody) -> Json:
    """How many jobs an act would be about, and some of them, unless they are chosen by a fingerprint. Nothing is
    changed."""
    chosen = _chosen(call, body)
    by_status = await call.storage.jobs.count(chosen)
    sample = [] if chosen.fingerprint is not None else await _sample(call, chosen)
    return Json({"count": sum(by_status.values()), "by_status": by_status, "sample": sample})


@endpoint(router, "POST", "/jobs/actions", role=Role.OPERATE, answer=OperationModel, status=202, tag="jobs")
async def act(call: Caller, body: ActionsBody) -> Json:
    """Begin an act on many jobs, in batches of 500. Jobs that it does not fit are skipped and counted.

    `expected_count` must be that of a preview, within 1 % or 10 jobs. Jobs enqueued after this call are not touched.
    If this server ends before the act does, what was done stays done. Ask for the rest again: no job is retried or
    cancelled twice.
    """
    chosen = _chosen(call, body)
    restricts = chosen if call.identity.queues is None else _without_own_queues(call, body, chosen)
    if restricts.is_everything and not body.all:
        raise invalid(
            "the filter names every job there is; say `all: true` if that is meant", field="all", reason="missing_field"
        )
    count = sum((await call.storage.jobs.count(chosen)).values()) if body.ids is None else len(chosen.ids or ())
    allowed = max(TOLERANCE, body.expected_count // 100)
    if body.ids is None and abs(count - body.expected_count) > allowed:
        raise Problem(
            "count_changed",
            f"{count} jobs match now, {body.expected_count} were expected; look again",
            field="expected_count",
            reason="count_changed",
        )
    check_pace(body.action, body.per_s)
    operation = call.services.operations.begin(body.action, chosen, count, call.actor, per_s=body.per_s)
    path = f"{call.request.scope.get('root_path', '')}/api/v1/operations/{operation.id}"
    return Json(operation.shown(), status_code=202, headers={"Location": path})


@endpoint(router, "GET", "/operations", role=Role.OPERATE, answer=Page[OperationModel], tag="jobs")
async def list_operations(call: Caller) -> Json:
    """The acts on many jobs that this server began, newest first: the last 200, until it ends."""
    items = [one.shown() for one in call.services.operations.list() if _may_see(call, one)]
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


@endpoint(router, "GET", "/operations/{id}", role=Role.OPERATE, answer=OperationModel, tag="jobs")
async def show_operation(call: Caller, id: str) -> Json:
    """How far an act on many jobs has come. They are forgotten with the server."""
    return Json(_find(call, id).shown())


@endpoint(router, "DELETE", "/operations/{id}", role=Role.OPERATE, answer=OperationModel, tag="jobs")
async def stop_operation(call: Caller, id: str) -> Json:
    """Stop an act on many jobs after the batch that is under way."""
    operation = _find(call, id)
    operation.stop = True
    return Json(operation.shown())


async def _sample(call: Call, chosen: JobFilter) -> list[dict[str, Any]]:
    page = await call.storage.jobs.list_jobs(chosen, limit=SAMPLE, with_total=False)
    secrets = await call.secrets()
    return [job_row(row, secrets) for row in page.items]


def _chosen(call: Call, body: PreviewBody) -> JobFilter:
    if (body.filter is None) == (body.ids is None):
        raise invalid("give filter or ids, one of them", field="filter", reason="missing_field")
    if body.ids is not None:
        ids = tuple(dict.fromkeys(id.upper() for id in body.ids))
        return JobFilter(ids=ids, queues=call.identity.queues)
    assert body.filter is not None
    return job_filter(call, body.filter)


def _without_own_queues(call: Call, body: PreviewBody, chosen: JobFilter) -> JobFilter:
    """What the caller itself restricts, beside what its token does."""
    from dataclasses import replace

    asked = body.filter or FilterBody()
    return chosen if asked.queue is not None else replace(chosen, queues=None)


def _find(call: Call, id: str) -> Operation:
    operation = call.services.operations.get(id)
    if operation is None or not _may_see(call, operation):
        raise NotFound(f"there is no operation {id[:64]!r}")
    return operation


def _may_see(call: Call, operation: Operation) -> bool:
    return call.identity.queues is None or operation.actor.name == call.identity.name
