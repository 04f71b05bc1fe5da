"""`/rate-limits`: looking at rate limits."""

from __future__ import annotations

from collections import Counter
from typing import Any

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page
from forge_jobs.api.model.queue import RateLimit as RateLimitModel
from forge_jobs.storage.types.rate_limit import RateLimit
from forge_jobs.view.kind import users_of
from forge_jobs.view.rate_limit import rate_limit_view

router = api_router()


@endpoint(router, "GET", "/rate-limits", role=Role.READ, answer=Page[RateLimitModel], tag="rate limits")
async def list_rate_limits(call: Caller) -> Json:
    """List rate limits with the tokens that are in their buckets now."""
    items = await describe_limits(call, await call.storage.rate_limits.list())
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


async def describe_limits(call: Call, limits: list[RateLimit]) -> list[dict[str, Any]]:
    """Limits with the kinds that take from them, and their waiting jobs in the queues that the caller sees."""
    waiting: Counter[str] = Counter()
    for queue, kinds in (await call.services.waiting_kinds.get()).items():
        if call.identity.may_see(queue):
            waiting.update(kinds)
    declared, processes = await call.storage.kinds.list(), await call.processes()
    seen = None if call.identity.queues is None else set(waiting)
    for row in processes:
        if seen is not None and row.live and any(map(call.identity.may_see, row.info.queues)):
            seen.update(row.info.kinds)
    return [{**rate_limit_view(limit), **users_of(limit, declared, processes, waiting, seen)} for limit in limits]
