"""Which executor a handler gets, and what the runtime asks of one."""

from __future__ import annotations

import difflib
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

    def sample(self, run: Run) -> None:
        """Have it told, now or soon, where the handler is: with `stacks.tell`."""


def choose(asked: str | None, kind: str, *, is_async: bool) -> Executor:
    """The executor that a handler asks for, else the one that fits its function.

    Raises:
        ConfigError: there is no such executor, or the function cannot run on it.
    """
    if asked is None:
        return Executor.ASYNC if is_async else Executor.THREAD
    try:
        executor = executor_named(asked)
    except ConfigError as error:
        raise ConfigError(f"handler for kind {kind!r}: {error}") from None
    if (reason := unfit(executor, is_async=is_async)) is None:
        return executor
    if is_async:
        hint = "make it `def` to run it on a thread, or say executor='process'"
    else:
        hint = "make it `async def`, or leave executor='async' away: plain functions run on threads"
    raise ConfigError(f"the handler for kind {kind!r} {reason}; {hint}")


def executor_named(name: object) -> Executor:
    """The executor of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return Executor(name)  # type: ignore[arg-type]
    except ValueError:
        names = [one.value for one in Executor]
        near = difflib.get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"executor {name!r} must be one of {', '.join(map(repr, names))}{hint}") from None


def unfit(executor: Executor, *, is_async: bool) -> str | None:
    """Why such a function cannot run there; None if it can."""
    if executor is Executor.ASYNC and not is_async:
        return "is a plain function, which would block the event loop"
    if executor is Executor.THREAD and is_async:
        return "is `async def`, which runs on the event loop"
    return None


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: also for a partial, and for an object that is called."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
