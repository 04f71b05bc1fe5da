"""Adding jobs."""

from __future__ import annotations

from typing import Any

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.job import EnqueueAnswer, EnqueueBody, EnqueueBulkAnswer, EnqueueBulkBody
from forge_jobs.api.problem import Problem, invalid
from forge_jobs.runtime.routing import fill
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.request import check_request
from forge_jobs.storage.types.job import Deduped, EnqueueOutcome, EnqueueRequest

router = api_router()


@endpoint(
    router,
    "POST",
    "/jobs",
    role=Role.OPERATE,
    answer=EnqueueAnswer,
    status=201,
    also={200: "The key is held, or the job was added before: nothing was added."},
    tag="jobs",
)
async def enqueue(call: Caller, body: EnqueueBody) -> Json:
    """Add a job.

    With an `id` of your own a repeat is safe. Without a `queue` the router names it.
    """
    request = _request(call, body)
    outcome = (await call.storage.jobs.enqueue_bulk([request], actor=call.actor))[0]
    shown = _shown(outcome)
    headers = {"Location": f"{call.request.scope.get('root_path', '')}/api/v1/jobs/{outcome.id}"}
    return Json(shown, status_code=201 if shown["outcome"] == "enqueued" else 200, headers=headers)


@endpoint(router, "POST", "/jobs/bulk", role=Role.OPERATE, answer=EnqueueBulkAnswer, tag="jobs")
async def enqueue_bulk(call: Caller, body: EnqueueBulkBody) -> Json:
    """Add up to 1 000 jobs, all of them or none."""
    requests = []
    for number, one in enumerate(body.jobs):
        try:
            request = _request(call, one)
            check_request(request, payload_max=call.config.payload_max)
        except InvalidInput as error:
            error.args = (f"job {number}: {error}",)
            raise
        requests.append(request)
    outcomes = await call.storage.jobs.enqueue_bulk(requests, actor=call.actor)
    return Json({"outcomes": [_shown(outcome) for outcome in outcomes]})


def _request(call: Call, body: EnqueueBody) -> EnqueueRequest:
    given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "queue" in given and given["queue"] is None:
        raise invalid("queue must be text; leave it out to let the router choose", field="queue", reason="invalid_type")
    request = EnqueueRequest(given.pop("kind"), **given)
    request = fill(request, call.config.router, max_attempts=call.config.max_attempts)
    if not call.identity.may_see(request.queue or ""):
        raise Problem("forbidden", f"this token may not add jobs to queue {request.queue!r}", field="queue")
    return request


def _shown(outcome: EnqueueOutcome) -> dict[str, Any]:
    if isinstance(outcome, Deduped):
        return {"id": outcome.id, "outcome": "deduped", "status": outcome.status.value}
    return {"id": outcome.id, "outcome": "repeated" if outcome.repeated else "enqueued", "status": None}
