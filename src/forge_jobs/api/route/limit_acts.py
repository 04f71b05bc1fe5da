"""Acts on rate limits."""

from __future__ import annotations

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.queue import DrainBody, PutLimit, RateLimit
from forge_jobs.api.problem import Problem
from forge_jobs.api.route.limits import describe_limits
from forge_jobs.names import check_name
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration

router = api_router()


@endpoint(router, "PUT", "/rate-limits/{scope}", role=Role.ADMIN, answer=RateLimit, tag="rate limits")
async def put_limit(call: Caller, scope: str, body: PutLimit) -> Json:
    """Set a rate limit, or make it with a full bucket. Tokens beyond a new capacity are gone; none are given."""
    _check(call)
    check_name(scope, "scope")
    limits = call.storage.rate_limits
    declaration = RateLimitDeclaration(scope=scope, capacity=body.capacity, refill_per_s=body.refill_per_s)
    if not await limits.add(declaration, actor=call.actor):
        await limits.change(scope, capacity=body.capacity, refill_per_s=body.refill_per_s, actor=call.actor)
    return await _stored(call, scope)


@endpoint(router, "POST", "/rate-limits/{scope}/drain", role=Role.OPERATE, answer=RateLimit, tag="rate limits")
async def drain_limit(call: Caller, scope: str, body: DrainBody | None = None) -> Json:
    """Empty a bucket, and with `retry_after` keep it shut for that long."""
    _check(call)
    hint = None if body is None else body.retry_after
    if not await call.storage.rate_limits.drain(scope, hint, actor=call.actor):
        raise NotFound(f"there is no rate limit {scope[:128]!r}")
    return await _stored(call, scope)


def _check(call: Caller) -> None:
    if call.identity.queues is not None:
        raise Problem("forbidden", "this token is limited to queues, and rate limits are of all of them")


async def _stored(call: Caller, scope: str) -> Json:
    found = await call.storage.rate_limits.get(scope)
    if found is None:
        raise NotFound(f"there is no rate limit {scope[:128]!r}")
    return Json((await describe_limits(call, [found]))[0])
