"""`ctx.run_sync()`: one coroutine on the worker's event loop, waited for on a handler's thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from forge_jobs.storage.error import InvalidInput, LostOwnership

if TYPE_CHECKING:
    from forge_jobs.runtime.running import Run

T = TypeVar("T")


def run_from_thread(run: Run, work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine gives or raises; see `JobCtx.run_sync`."""
    from forge_jobs.runtime.running import RunState

    check_coroutine(work)
    assert run.task is not None
    loop = run.task.get_loop()
    if _running_loop() is loop:
        work.close()
        raise InvalidInput("run_sync blocks, and this is the event loop; await the coroutine", reason="on_the_loop")
    if run.state is RunState.ABANDONED:
        work.close()
        raise LostOwnership(f"job {run.job.id} has ended without this handler, which ignored its timeout or cancel")
    try:
        answer, error = asyncio.run_coroutine_threadsafe(_caught(work), loop).result()
    except concurrent.futures.CancelledError:  # the loop is being closed
        raise asyncio.CancelledError from None
    except RuntimeError:  # it was closed
        work.close()
        raise LostOwnership(f"the worker of job {run.job.id} has stopped") from None
    if error is not None:
        try:
            raise error
        finally:
            del error
    return answer  # type: ignore[return-value]


def check_coroutine(work: object) -> None:
    """Refuse what is no coroutine: a function that was not called, a plain value."""
    if not asyncio.iscoroutine(work):
        raise InvalidInput(
            f"run_sync takes a coroutine, such as ctx.enqueue(…), not {type(work).__name__}", reason="invalid_type"
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _caught(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """Whatever it raises as a value: a SystemExit in a task would end the event loop, and with it the worker."""
    try:
        return await work, None
    except BaseException as error:
        return None, error
