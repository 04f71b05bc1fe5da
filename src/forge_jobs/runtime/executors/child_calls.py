"""What a handler in a child asks its worker to do with the job's context."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from forge_jobs.runtime.executors.follow_ups import pack_outcome, unpack_requests
from forge_jobs.runtime.executors.frames import Call, Reply, wire_error
from forge_jobs.storage.error import InvalidInput, LostOwnership
from forge_jobs.storage.types.rate_limit import Granted

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx


async def do_call(call: Call, ctx: JobCtx) -> Reply:
    """Do it; the answer, whatever comes of it."""
    try:
        return Reply(call.number, value=await _do(call.verb, call.arguments, ctx))
    except asyncio.CancelledError:
        return Reply(call.number, error=wire_error(LostOwnership(f"the run of job {ctx.job_id} is over")))
    except Exception as error:
        return Reply(call.number, error=wire_error(error))


async def _do(verb: str, arguments: list[Any], ctx: JobCtx) -> Any:
    match verb, arguments:
        case "enqueue", [stored, left_open]:
            (request,) = unpack_requests(stored, left_open)
            return pack_outcome(await ctx.enqueue(request))
        case "enqueue_bulk", [stored, left_open]:
            return [pack_outcome(one) for one in await ctx.enqueue_bulk(unpack_requests(stored, left_open))]
        case "acquire", [scope, cost, wait]:
            answer = await ctx.rate_limit.acquire(scope, cost, wait=wait)
            if isinstance(answer, Granted):
                return ["granted", answer.remaining, answer.at.isoformat()]
            return ["refused", answer.retry_after.total_seconds(), None]
        case "drain", [scope, retry_after]:
            return await ctx.rate_limit.drain(scope, retry_after)
    raise InvalidInput(f"a child asked for {verb!r}, which is not known")
