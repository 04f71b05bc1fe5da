"""`/rate-limits`: looking at rate limits."""

from __future__ import annotations

from typing import Any

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.etag import RATE_LIMIT
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page
from forge_jobs.api.model.queue import RateLimit as RateLimitModel
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.rate_limit import RateLimit
from forge_jobs.view.rate_limit import rate_limit_view

router = api_router()


@endpoint(router, "GET", "/rate-limits", role=Role.READ, answer=Page[RateLimitModel], tag="rate limits")
async def list_rate_limits(call: Caller) -> Json:
    """List rate limits with the tokens that are in their buckets now."""
    items = [shown(limit) for limit in await call.storage.rate_limits.list()]
    return Json({"items": items, "next_cursor": None, "total": len(items), "total_at_least": None})


@endpoint(router, "GET", "/rate-limits/{scope}", role=Role.READ, answer=RateLimitModel, tag="rate limits")
async def show_rate_limit(call: Caller, scope: str) -> Json:
    """One rate limit with the tokens that are in its bucket now."""
    return answer(await find_limit(call, scope))


async def find_limit(call: Call, scope: str) -> RateLimit:
    """The limit, if there is one.

    Raises:
        NotFound: there is not.
    """
    found = await call.storage.rate_limits.get(scope)
    if found is None:
        raise NotFound(f"there is no rate limit {scope[:128]!r}")
    return found


def shown(limit: RateLimit) -> dict[str, Any]:
    return {**rate_limit_view(limit), "etag": RATE_LIMIT.tag(limit)}


def answer(limit: RateLimit) -> Json:
    return Json(shown(limit), headers=RATE_LIMIT.headers(limit))
