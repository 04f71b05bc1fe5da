"""Acts on one job."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.job import ActAnswer, DeleteAnswer, JobRow, PatchJobBody
from forge_jobs.api.model.queue import Nothing
from forge_jobs.api.problem import Problem, invalid
from forge_jobs.api.route.jobs import find_job
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.answers import CancelOutcome, DeleteOutcome, NotRetryable, Retried, SlotHeld
from forge_jobs.storage.types.job import JobChange
from forge_jobs.view.job import job_row

router = api_router()


@endpoint(router, "PATCH", "/jobs/{id:job}", role=Role.OPERATE, answer=JobRow, tag="jobs")
async def change_job(call: Caller, id: str, body: PatchJobBody) -> Json:
    """Change a job that waits; what is not given stays. One that runs or has ended is a conflict."""
    job_id = (await find_job(call, id)).row.id
    given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    for name, value in given.items():
        if value is None and name != "expires_at":
            raise invalid(f"{name} must not be null; leave it out to keep it", field=name, reason="invalid_type")
    if "queue" in given and not call.identity.may_see(given["queue"]):
        raise Problem("forbidden", f"this token may not move jobs to queue {given['queue']!r}", field="queue")
    refused = await call.storage.jobs.change(job_id, JobChange(**given), actor=call.actor)
    if refused is not None and refused.status is not None:
        raise Problem("conflict", f"job {job_id} is {refused.status}; only one that waits can be changed",
                      reason=f"is_{refused.status}")  # fmt: skip
    return Json(job_row((await find_job(call, job_id)).row, await call.secrets()))


@endpoint(router, "DELETE", "/jobs/{id:job}", role=Role.OPERATE, answer=DeleteAnswer, tag="jobs")
async def delete_job(call: Caller, id: str) -> Json:
    """Remove a job with its history. A running one is asked to stop instead: delete it again once it is dead."""
    job_id = (await find_job(call, id)).row.id
    outcome = await call.storage.jobs.delete(job_id, actor=call.actor)
    if outcome is DeleteOutcome.NOT_FOUND:
        raise _gone(job_id)
    return Json({"outcome": outcome.value})


@endpoint(router, "POST", "/jobs/{id:job}/retry", role=Role.OPERATE, answer=ActAnswer, tag="jobs")
async def retry_job(call: Caller, id: str, body: Nothing | None = None) -> Json:
    """Make a failed or dead job pending, due now, with a fresh budget."""
    job_id = (await find_job(call, id)).row.id
    match await call.storage.jobs.retry(job_id, actor=call.actor):
        case Retried():
            return _acted(job_id, True, "retried")
        case SlotHeld(holder=holder):
            return _acted(job_id, False, "slot_held", holder)
        case NotRetryable(status=None):
            raise _gone(job_id)
        case NotRetryable(status=status):
            return _acted(job_id, False, f"is_{status}")


@endpoint(router, "POST", "/jobs/{id:job}/run-now", role=Role.OPERATE, answer=ActAnswer, tag="jobs")
async def run_job_now(call: Caller, id: str, body: Nothing | None = None) -> Json:
    """Make a pending job due now."""
    job_id = (await find_job(call, id)).row.id
    changed = await call.storage.jobs.run_now(job_id, actor=call.actor)
    return _acted(job_id, changed, "due" if changed else "not_pending")


@endpoint(router, "POST", "/jobs/{id:job}/cancel", role=Role.OPERATE, answer=ActAnswer, tag="jobs")
async def cancel_job(call: Caller, id: str, body: Nothing | None = None) -> Json:
    """End a waiting job, or ask a running one to stop."""
    job_id = (await find_job(call, id)).row.id
    outcome = await call.storage.jobs.cancel(job_id, actor=call.actor)
    if outcome is CancelOutcome.NOT_FOUND:
        raise _gone(job_id)
    return _acted(job_id, outcome is not CancelOutcome.ALREADY_FINISHED, outcome.value)


def _acted(job_id: str, changed: bool, outcome: str, held_by: str | None = None) -> Json:
    return Json({"id": job_id, "changed": changed, "outcome": outcome, "held_by": held_by})


def _gone(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id!r}")


__all__ = ["Call", "Response", "router"]
