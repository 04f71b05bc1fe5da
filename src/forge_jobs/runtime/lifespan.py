"""Resources that all handlers of a process share: made before the first claim, closed after the last handler ended."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

from forge_jobs.runtime.signature import positional
from forge_jobs.storage.error import ConfigError, LifespanError

log = logging.getLogger("forge_jobs.lifespan")

LEAVE_S: Final = 5.0
"""How long the resources get to close, all together."""
INTERRUPT_S: Final = 2.0
"""How long one that is being made gets to stop when the worker is stopped meanwhile."""

Manager: TypeAlias = "Callable[..., AbstractAsyncContextManager[Any]]"


class State:
    """The resources of a process by name, as attributes."""

    __slots__ = ("_values",)
    _values: Mapping[str, Any]

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        object.__setattr__(self, "_values", dict(values or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(sorted(self._values)) or "none"
            raise AttributeError(f"there is no resource {name!r}; @handlers.lifespan provides {known}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"resource {name!r} cannot be set: resources are made by @handlers.lifespan")

    def __repr__(self) -> str:
        return f"State({', '.join(sorted(self._values))})"


def take(state: State, names: Iterable[str]) -> dict[str, Any]:
    """The named resources, as keyword arguments."""
    return {name: getattr(state, name) for name in names}


class Lifespans:
    """What a registry provides: functions that make a resource, in the order they were declared."""

    def __init__(self) -> None:
        self._managers: dict[str, Manager] = {}

    def add(self, function: Callable[..., Any]) -> None:
        """Declare a resource under the name of the function, which yields it once.

        Raises:
            ConfigError: the function is no async generator or context manager, or wants a resource that none before
                it provides.
        """
        name = getattr(function, "__name__", "")
        made_by = inspect.unwrap(function)
        if not name.isidentifier() or not inspect.isasyncgenfunction(made_by):
            raise ConfigError(
                f"@handlers.lifespan stands on {name or function!r}, which is no async generator; write `async def` "
                "with one `yield` of the resource"
            )
        for parameter in positional(made_by):
            if parameter.name not in self._managers:
                raise ConfigError(
                    f"lifespan {name!r} takes {parameter.name!r}, which no lifespan before it provides; "
                    f"there is {', '.join(self._managers) or 'none'}"
                )
        self._managers[name] = function if made_by is not function else asynccontextmanager(function)

    def __contains__(self, name: object) -> bool:
        return name in self._managers

    def __len__(self) -> int:
        return len(self._managers)

    @property
    def names(self) -> list[str]:
        """The resources, in the order in which they are made."""
        return list(self._managers)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[State]:
        """The resources, made here and closed at the end of the block, the last one first.

        For whatever runs handlers in a process of its own. Resources are made and closed in the calling task.

        Raises:
            LifespanError: one of them could not be made, or failed as it was closed.
        """
        values: dict[str, Any] = {}
        made: list[tuple[str, AbstractAsyncContextManager[Any]]] = []
        try:
            for name, function in self._managers.items():
                wants = positional(inspect.unwrap(function))
                manager = function(**{want.name: values[want.name] for want in wants})
                try:
                    values[name] = await manager.__aenter__()
                except Exception as error:
                    raise LifespanError(f"resource {name!r} could not be made: {_shown(error)}") from error
                made.append((name, manager))
            yield State(values)
        except BaseException:
            for fault in await _closed(made):
                log.error("lifespan_fault error=%s", fault, exc_info=fault)
            raise
        for fault in await _closed(made):
            raise fault


async def _closed(made: list[tuple[str, AbstractAsyncContextManager[Any]]]) -> list[BaseException]:
    """Close every one, the last first, whatever becomes of the others; what went wrong."""
    faults: list[BaseException] = []
    for name, manager in reversed(made):
        try:
            await manager.__aexit__(None, None, None)
        except Exception as error:
            fault = LifespanError(f"resource {name!r} failed as it was closed: {_shown(error)}")
            fault.__cause__ = error
            faults.append(fault)
        except BaseException as error:  # cut off: the others get their chance
            faults.insert(0, error)
    return faults


class Life:
    """The resources of one worker process. One task makes and closes them all, as task groups in them demand."""

    def __init__(self, lifespans: Lifespans) -> None:
        self._lifespans = lifespans
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def enter(self, stopping: asyncio.Event) -> State:
        """Make the resources. However long that takes, unless the worker is told to stop: then nothing is left of them.

        Raises:
            LifespanError: one could not be made; those before it are closed.
        """
        if not len(self._lifespans):
            return State()
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[State] = loop.create_future()
        self._task = loop.create_task(self._live(ready), name="forge-lifespan")
        stopped = loop.create_task(stopping.wait())
        try:
            ends: set[asyncio.Future[Any]] = {ready, self._task, stopped}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not ready.done():
                self._task.cancel()
        if ready.done():
            return ready.result()
        await self._ended(INTERRUPT_S)
        return State()

    async def leave(self) -> None:
        """Close the resources; at most 5 s, then they are cut off.

        Raises:
            LifespanError: one failed as it was closed, or took too long.
        """
        self._leave.set()
        if self._task is None:
            return
        if not self._task.done() and not await self._ended(LEAVE_S):
            self._task.cancel()
            await self._ended(INTERRUPT_S)
            raise LifespanError(f"the resources took more than {LEAVE_S:g} s to close")
        task, self._task = self._task, None
        with contextlib.suppress(asyncio.CancelledError):
            task.result()

    async def _live(self, ready: asyncio.Future[State]) -> None:
        try:
            async with self._lifespans.entered() as state:
                ready.set_result(state)
                log.info("resources_ready names=%s", ",".join(self._lifespans.names))
                await self._leave.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _ended(self, within_s: float) -> bool:
        assert self._task is not None
        done, _ = await asyncio.wait({self._task}, timeout=within_s)
        return bool(done)


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
