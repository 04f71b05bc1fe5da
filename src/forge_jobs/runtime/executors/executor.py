"""Which executor a handler gets, and what the runtime asks of one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from forge_jobs.storage.error import ConfigError

if TYPE_CHECKING:
    from forge_jobs.runtime.running import Run


class Executor(StrEnum):
    """Where a handler runs."""

    ASYNC = "async"
    THREAD = "thread"
    PROCESS = "process"


class Place(Protocol):
    """Where one run goes on that is not in the task of its slot, and so is not ended by cancelling that task."""

    def end(self, run: Run) -> float:
        """Begin to end the handler. The slot goes on without it if it is still there so many seconds later."""

    def left(self, run: Run) -> None:
        """The slot goes on without it."""


def choose(function: Callable[..., Any], asked: str | None, kind: str) -> Executor:
    """The executor asked for, else the one that fits the function.

    Raises:
        ConfigError: there is no such executor, or the function cannot run on it.
    """
    is_async = is_coroutine_function(function)
    if asked is None:
        return Executor.ASYNC if is_async else Executor.THREAD
    try:
        executor = Executor(asked)
    except ValueError:
        names = ", ".join(repr(one.value) for one in Executor)
        raise ConfigError(f"handler for kind {kind!r}: executor {asked!r} must be one of {names}") from None
    if executor is Executor.ASYNC and not is_async:
        raise ConfigError(
            f"the handler for kind {kind!r} is a plain function, which would block the event loop; make it "
            "`async def`, or leave executor='async' away: plain functions run on threads"
        )
    if executor is Executor.THREAD and is_async:
        raise ConfigError(
            f"the handler for kind {kind!r} is `async def`, which runs on the event loop; make it `def` to run it on "
            "a thread, or say executor='process'"
        )
    return executor


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: also for a partial, and for an object that is called."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
