"""A handler for trying things out: sleeps, then answers as its payload says.

handlers.register(NoopEcho())
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.outcome import Dead, Done, Failed, JobOutcome, Throttled

KIND: Final = "noop_echo"
SLEEP_MS_MAX: Final = 600_000
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=SLEEP_MS_MAX)]


class Wish(msgspec.Struct):
    """The payload of `noop_echo`; other keys are ignored."""

    sleep_ms: Milliseconds = 100
    fail: bool = False
    throttle_ms: Milliseconds | None = None


class NoopEcho:
    """Sleeps for `sleep_ms` (100, 0 … 600 000), watching for a cancel. Then fails with "demo-fail" if `fail` is true,
    is throttled if `throttle_ms` (0 … 600 000) is there, else is done. A payload that is not like that is dead."""

    kind = KIND

    async def run(self, ctx: JobCtx, payload: Any) -> JobOutcome:
        try:
            wish = msgspec.convert({} if payload is None else payload, Wish)
        except msgspec.ValidationError as error:
            return Dead(f"payload: {error}")
        if wish.sleep_ms:
            await ctx.cancel.fired_within(wish.sleep_ms / 1000)
            ctx.cancel.raise_if_cancelled()
        if wish.fail:
            return Failed("demo-fail")
        if wish.throttle_ms is not None:
            return Throttled(wish.throttle_ms / 1000)
        return Done()
