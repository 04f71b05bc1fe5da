"""The handlers of the workers under test. Each run is written to the ledger: its start, its end, why it was stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from forge_jobs import Dead, Done, Failed, HandlerRegistry, JobCtx, Throttled

from . import ledger

handlers = HandlerRegistry()
_ledger = ledger.Ledger(os.environ[ledger.DIRECTORY])


def _note(what: str, ctx: JobCtx, note: str = "") -> None:
    _ledger.write(what, job=ctx.job_id, fence=ctx.fence, attempt=ctx.attempt, note=note)


@handlers.handler("brief")
async def brief(ctx: JobCtx, payload: Any) -> None:
    """Takes as many seconds as its payload says."""
    _note("start", ctx)
    if payload:
        await asyncio.sleep(payload)
    _note("end", ctx)


@handlers.handler("long")
async def long(ctx: JobCtx, payload: float) -> Done:
    """Its first run waits to be told to stop; a later one is done at once."""
    _note("start", ctx)
    if ctx.fence == 1:
        try:
            await asyncio.wait_for(ctx.cancel.wait(), payload)
        except TimeoutError:
            _note("end", ctx)
        _note("told", ctx, str(ctx.cancel.reason))
    _note("end", ctx)
    return Done()


@handlers.handler("heeding")
async def heeding(ctx: JobCtx) -> None:
    """Its first run lasts until it is told to stop, and stops at once; a later one is done at once."""
    _note("start", ctx)
    if ctx.fence == 1:
        _note("told", ctx, str(await ctx.cancel.wait()))
        ctx.cancel.raise_if_cancelled()
    _note("end", ctx)


@handlers.handler("deaf")
async def deaf(ctx: JobCtx) -> None:
    """Ignores every signal to stop, until its task is cancelled."""
    _note("start", ctx)
    try:
        await asyncio.Event().wait()
    finally:
        _note("end", ctx)


@handlers.handler("mixed", timeout=0.02, cancel_grace=0.0)
async def mixed(ctx: JobCtx, payload: int) -> Done | Failed | Throttled | Dead:
    """Ends in every way there is, by turns."""
    match payload % 6:
        case 0:
            ctx.progress(payload, 100)
            return Done()
        case 1:
            return Dead("x" * 2_000)
        case 2:
            raise ValueError(f"no {payload}")
        case 3:
            return Throttled(3_600, cool_down=False)
        case 4:
            await asyncio.sleep(1)
    return Failed("later")


@handlers.handler("refused_once")
async def refused_once(ctx: JobCtx, payload: float) -> Throttled | None:
    """The upstream refuses its first run, for as many seconds as the payload says."""
    _note("start", ctx)
    if ctx.fence > 1:
        return None
    _note("refused", ctx)
    return Throttled(payload)


@handlers.handler("poison")
async def poison(ctx: JobCtx) -> None:
    """Kills its process."""
    _note("start", ctx)
    os.kill(os.getpid(), signal.SIGKILL)
