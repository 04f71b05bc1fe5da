"""`/audit`: what people did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Query

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page, PageQuery
from forge_jobs.api.model.overview import AuditEntry
from forge_jobs.api.problem import Problem
from forge_jobs.redact import Secrets, redact
from forge_jobs.storage.types.event import AuditRow

router = api_router()


class AuditQuery(PageQuery):
    """Whose acts, and which."""

    actor: str | None = None
    action: str | None = None


@endpoint(router, "GET", "/audit", role=Role.ADMIN, answer=Page[AuditEntry], tag="store")
async def audit(call: Caller, asked: Annotated[AuditQuery, Query()]) -> Json:
    """What people did, newest first."""
    if call.identity.queues is not None:
        raise Problem("forbidden", "this token is limited to queues, and the audit is of all of them")
    page = await call.storage.audit.page(limit=asked.limit, cursor=asked.cursor, actor=asked.actor, action=asked.action)
    secrets = await call.secrets()
    items = [_shown(row, secrets) for row in page.items]
    return Json({"items": items, "next_cursor": page.next_cursor, "total": page.total, "total_at_least": None})


def _shown(row: AuditRow, secrets: Secrets) -> dict[str, Any]:
    return {
        "at": row.at,
        "actor": row.actor.name,
        "role": row.actor.role,
        "surface": row.actor.surface,
        "address": row.actor.address,
        "request_id": row.actor.request_id,
        "action": row.action,
        "target": row.target,
        "count": row.count,
        "outcome": row.outcome,
        "before": _hidden(row.before, secrets),
        "after": _hidden(row.after, secrets),
    }


def _hidden(settings: Mapping[str, Any] | None, secrets: Secrets) -> dict[str, Any] | None:
    """Settings without secrets. The payload of a schedule may be for a kind that it no longer has, so it is shown by
    the rules of all kinds."""
    if settings is None:
        return None
    return {key: secrets.value(None, value) if key == "payload" else redact(value) for key, value in settings.items()}
