"""The `run` of every handler that runs in a child process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_jobs.runtime.context import run_of

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx


async def in_child(ctx: JobCtx, payload: Any) -> Any:
    """Wait for a child to call the handler. The job's kind says which that is, and its stored payload goes there."""
    run = run_of(ctx)
    return await run.env.processes.call(run, ctx)
