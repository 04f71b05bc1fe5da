"""Code around every handler of a registry: hooks before and after a run, middleware, and what hears of deaths.

    @handlers.middleware
    async def timed(ctx: JobCtx, payload: Any, call_next: CallNext) -> JobOutcome:
        began = time.monotonic()
        try:
            return await call_next(ctx, payload)
        finally:
            RUN_SECONDS.labels(ctx.kind).observe(time.monotonic() - began)

A registry without any costs its jobs nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from forge_jobs.runtime.lifespan import State, take
from forge_jobs.runtime.outcome import Dead, Done, Failed, JobOutcome, OutcomeError, Released, RunOutcome, Throttled
from forge_jobs.runtime.signature import resources_of
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.types import finalize

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.handler import Run

log = logging.getLogger("forge_jobs.hooks")

CallNext: TypeAlias = "Callable[[JobCtx, Any], Awaitable[JobOutcome]]"
_Before = TypeVar("_Before", bound="Callable[..., Coroutine[Any, Any, None]]")
_Around = TypeVar("_Around", bound="Callable[..., Coroutine[Any, Any, JobOutcome]]")

_ARGUMENTS: Final = {
    "before_run": ("ctx", "payload"),
    "after_run": ("ctx", "outcome"),
    "on_dead": ("job",),
    "middleware": ("ctx", "payload", "call_next"),
}


class HookFault(Exception):
    """A `before_run` hook failed, which fails the run whatever the handler's `retry_on` and `dead_on` say."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook, with the resources that it takes."""

    function: Callable[..., Awaitable[Any]]
    resources: tuple[str, ...]

    @property
    def name(self) -> str:
        return getattr(self.function, "__qualname__", repr(self.function))

    def __call__(self, state: State, *arguments: Any) -> Awaitable[Any]:
        if not self.resources:
            return self.function(*arguments)
        return self.function(*arguments, **take(state, self.resources))


class Hooks:
    """The hooks of a registry. All are async, may take resources, and apply from the next run on."""

    def __init__(self) -> None:
        self.before: tuple[Hook, ...] = ()
        self.after: tuple[Hook, ...] = ()
        self.around: tuple[Hook, ...] = ()
        self.dead: tuple[Hook, ...] = ()
        self.wraps = False
        """Whether anything stands between the slot and the handlers."""

    def before_run(self, function: _Before) -> _Before:
        """Call `function(ctx, payload)` before each run, under its timeout. What it raises fails the run, and the
        handler is not called; an outcome in its exception form (`DeadError`, `ThrottledError`, …) is the run's."""
        self.before = (*self.before, _hook("before_run", function))
        self.wraps = True
        return function

    def after_run(self, function: _Before) -> _Before:
        """Call `function(ctx, outcome)` after each run, under its timeout, also if its payload could not be read.

        `outcome` is what is going to be recorded, a `Released` for a run that was interrupted. It cannot be changed:
        faults are logged as `hook_fault` and counted.
        """
        self.after = (*self.after, _hook("after_run", function))
        return function

    def on_dead(self, function: _Before) -> _Before:
        """Call `function(job)` when this process has recorded that a job is dead: by its outcome, by a cancel while it
        ran, or because its worker crashed too often and this process reaped it.

        Best effort, after the fact and outside of the run, at most 30 s each: a worker that is killed tells nobody.
        Jobs that never ran (cancelled or superseded while they waited, expired) are not told.
        """
        self.dead = (*self.dead, _hook("on_dead", function))
        return function

    def middleware(self, function: _Around) -> _Around:
        """Call `function(ctx, payload, call_next)` in place of the handler, under its timeout.

        It returns an outcome, usually that of `await call_next(ctx, payload)`, where what the handler raises comes
        through. The first one registered is the outermost. `before_run` hooks come before all.
        """
        self.around = (*self.around, _hook("middleware", function))
        self.wraps = True
        return function

    def resources(self) -> dict[str, tuple[str, ...]]:
        """What hooks take, by their names."""
        return {hook.name: hook.resources for hook in (*self.before, *self.after, *self.around, *self.dead)}

    async def run(self, handler: Run, ctx: JobCtx, payload: Any) -> Any:
        """What the handler answers, with everything before and around it."""
        for hook in self.before:
            try:
                await hook(ctx.state, ctx, payload)
            except OutcomeError:
                raise
            except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
                raise HookFault(f"before_run {hook.name}") from error
        call: CallNext = partial(_answer, handler)
        for hook in reversed(self.around):
            call = partial(_through, hook, call)
        return await call(ctx, payload)


def seen(outcome: finalize.FinalizeOutcome) -> RunOutcome:
    """What is recorded of a run, in the words of handlers."""
    match outcome:
        case finalize.Done():
            return Done()
        case finalize.Throttled(delay=delay, cool_down=cool_down):
            return Throttled(delay, cool_down)
        case finalize.Failed(error=error) | finalize.Crashed(error=error):
            return Failed(error.message)
        case finalize.Dead(error=error):
            return Dead(error.message)
        case finalize.Released():
            return Released()


async def _answer(handler: Run, ctx: JobCtx, payload: Any) -> Any:
    answer = await handler(ctx, payload)
    return Done() if answer is None else answer


async def _through(hook: Hook, call_next: CallNext, ctx: JobCtx, payload: Any) -> Any:
    answer = await hook(ctx.state, ctx, payload, call_next)
    if answer is None:  # else a forgotten `return` would make a failure Done
        return Failed(f"middleware {hook.name} returned None; it must return an outcome, usually that of call_next")
    return answer


def _hook(what: str, function: Callable[..., Any]) -> Hook:
    arguments = _ARGUMENTS[what]
    written = f"async def {getattr(function, '__name__', what)}({', '.join(arguments)})"
    if not inspect.iscoroutinefunction(function):
        raise ConfigError(f"@handlers.{what} needs an async function: `{written}`")
    resources = resources_of(function)
    try:
        inspect.signature(function).bind(*arguments, **dict.fromkeys(resources))
    except TypeError as error:
        raise ConfigError(f"@handlers.{what} calls its function as `{written}`: {error}") from error
    return Hook(function, resources)
