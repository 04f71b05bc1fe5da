"""Jobs whose price depends on their payload: paid for between the claim and the start.

The claim cannot know what such a job costs. So it is asked for here, before a slot begins to work, and a job that
cannot be paid for goes back with a turn of its own, its attempt restored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from forge_jobs.payload import BadPayload
from forge_jobs.runtime.conclude import describe
from forge_jobs.storage.backoff import retry_delay
from forge_jobs.storage.types.finalize import ErrorText, Failed, FinalizeOutcome, Released
from forge_jobs.storage.types.job import JobRecord
from forge_jobs.storage.types.rate_limit import Refused

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv

log = logging.getLogger("forge_jobs.limits")


async def refusals(env: RuntimeEnv, jobs: Sequence[JobRecord]) -> dict[str, FinalizeOutcome]:
    """What becomes of those jobs that must not start now, by id. The others are paid for, or free."""
    asked = [job for job in jobs if job.kind in env.handlers.priced_by_payload]
    if not asked:
        return {}
    answers = await asyncio.gather(*(_refusal(env, job) for job in asked))
    return {job.id: answer for job, answer in zip(asked, answers, strict=True) if answer is not None}


async def _refusal(env: RuntimeEnv, job: JobRecord) -> FinalizeOutcome | None:
    handler = env.handlers.get(job.kind)
    if handler is None or handler.options.price is None:
        return None
    try:
        price = handler.options.price.of(handler.reader.decode(job.payload))
        if price is None:
            return None
        answer = await env.storage.rate_limits.acquire(*price, park=True)
    except BadPayload:  # its run ends before the handler, and says what is wrong
        return None
    except Exception as error:  # a function of the user's, or a price that can never be paid
        text = describe(error)
        delay = retry_delay(job.attempts, env.queue_settings(job.queue).backoff)
        return Failed(error=ErrorText(f"rate_limit: {text.message}", text.traceback), delay=delay)
    return Released(delay=answer.retry_after) if isinstance(answer, Refused) else None
