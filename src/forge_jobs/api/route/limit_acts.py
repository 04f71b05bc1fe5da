"""Acts on rate limits."""

from __future__ import annotations

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.etag import RATE_LIMIT
from forge_jobs.api.identity import Role
from forge_jobs.api.model.queue import DrainBody, PutLimit, RateLimit
from forge_jobs.api.problem import Problem
from forge_jobs.api.route.limits import answer, find_limit
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration

router = api_router()


@endpoint(
    router,
    "PUT",
    "/rate-limits/{scope}",
    role=Role.ADMIN,
    answer=RateLimit,
    also={412: "It was changed since."},
    tag="rate limits",
)
async def put_limit(call: Caller, scope: str, body: PutLimit) -> Json:
    """Set a rate limit, or make it with a full bucket. Tokens beyond a new capacity are gone; none are given. With
    `If-Match` it is done only if there is one and nobody changed it since."""
    _check(call)
    declaration = RateLimitDeclaration(scope=scope, capacity=body.capacity, refill_per_s=body.refill_per_s)
    check = RATE_LIMIT.check(call.request)
    return answer(await call.storage.rate_limits.put(declaration, check=check, actor=call.actor))


@endpoint(router, "POST", "/rate-limits/{scope}/drain", role=Role.OPERATE, answer=RateLimit, tag="rate limits")
async def drain_limit(call: Caller, scope: str, body: DrainBody | None = None) -> Json:
    """Empty a bucket, and with `retry_after` keep it shut for that long."""
    _check(call)
    hint = None if body is None else body.retry_after
    if not await call.storage.rate_limits.drain(scope, hint, actor=call.actor):
        raise NotFound(f"there is no rate limit {scope[:128]!r}")
    return answer(await find_limit(call, scope))


def _check(call: Caller) -> None:
    if call.identity.queues is not None:
        raise Problem("forbidden", "this token is limited to queues, and rate limits are of all of them")
