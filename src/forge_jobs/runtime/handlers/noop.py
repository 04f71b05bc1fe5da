"""A handler for trying things out: sleeps, then answers as its payload says. Registered by hand only."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.outcome import Done, Failed, JobOutcome, Throttled

KIND: Final = "noop_echo"
SLEEP_MS_MAX: Final = 600_000


def register_noop_echo(handlers: HandlerRegistry) -> None:
    """Register the kind `noop_echo`.

    Its payload: `sleep_ms` (100, 0 … 600 000), `fail` (false), `throttle_ms` (absent). Other keys are ignored.
    """
    handlers.handler(KIND)(noop_echo)


async def noop_echo(ctx: JobCtx, payload: Any) -> JobOutcome:
    """Sleep, watching for a cancel; then fail, throttle or be done, as asked."""
    options = payload if isinstance(payload, dict) else {}
    sleep_ms = min(max(float(options.get("sleep_ms", 100)), 0.0), SLEEP_MS_MAX)
    if sleep_ms:
        try:
            await asyncio.wait_for(ctx.cancel.wait(), sleep_ms / 1000)
        except TimeoutError:
            pass
        ctx.cancel.raise_if_cancelled()
    if options.get("fail"):
        return Failed("demo-fail")
    if options.get("throttle_ms") is not None:
        return Throttled(float(options["throttle_ms"]) / 1000)
    return Done()
