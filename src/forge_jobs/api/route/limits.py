"""`/rate-limits`: looking at rate limits."""

from __future__ import annotations

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page
from forge_jobs.api.model.queue import RateLimit
from forge_jobs.view.rate_limit import rate_limit_view

router = api_router()


@endpoint(router, "GET", "/rate-limits", role=Role.READ, answer=Page[RateLimit], tag="rate limits")
async def list_rate_limits(call: Caller) -> Json:
    """List rate limits with the tokens that are in their buckets now."""
    items = [rate_limit_view(limit) for limit in await call.storage.rate_limits.list()]
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})
