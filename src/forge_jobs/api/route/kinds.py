"""`/kinds`: what jobs there are, and what code says of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Asked, Page
from forge_jobs.api.model.kind import KindDetail, KindRow
from forge_jobs.api.problem import Problem
from forge_jobs.storage.error import NotFound
from forge_jobs.view.kind import kind_detail, kind_views

router = api_router()


class KindsQuery(Asked):
    """Of which queues; all of them if none is named."""

    queue: list[str] | None = None


@endpoint(router, "GET", "/kinds", role=Role.READ, answer=Page[KindRow], tag="kinds")
async def kinds(call: Caller, asked: Annotated[KindsQuery, Query()]) -> Json:
    """List kinds: those that code declared, that live workers serve, and that there are jobs of.

    Jobs are counted that are not done, by queue.
    """
    items = await _views(call, asked.queue)
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


@endpoint(router, "GET", "/kinds/{kind}", role=Role.READ, answer=KindDetail, tag="kinds")
async def show_kind(call: Caller, kind: str) -> Json:
    """One kind, with what code declares: the JSON Schema of its payloads, its options, and what is hidden of its jobs.

    `redact` and `payload_view` are what applies: everything that code ever declared, until it is reset.
    """
    return Json(await _detail(call, kind))


@endpoint(router, "POST", "/kinds/{kind}/reset", role=Role.ADMIN, answer=KindDetail, tag="kinds")
async def reset_kind(call: Caller, kind: str) -> Json:
    """Hide of the jobs of a kind only what its newest declaration says, and nothing that older code declared."""
    if call.identity.queues is not None:
        raise Problem("forbidden", "this token is limited to queues, and kinds are of all of them")
    await call.storage.kinds.reset_to_code(kind, actor=call.actor)
    return Json(await _detail(call, kind))


async def _detail(call: Call, kind: str) -> dict[str, Any]:
    shown = next((one for one in await _views(call, None) if one["kind"] == kind), None)
    if shown is None:
        raise NotFound(f"there is no kind {kind[:128]!r}: no worker declared it, and no job is of it")
    return kind_detail(shown, await call.storage.kinds.get(kind), await call.processes())


async def _views(call: Call, asked: list[str] | None) -> list[dict[str, Any]]:
    storage = call.storage
    return kind_views(
        await storage.jobs.recent_kinds(),
        await storage.kinds.list(),
        await call.processes(),
        call.identity.visible(asked),
    )
