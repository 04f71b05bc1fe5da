"""Handlers: the code that runs jobs of a kind, and the registry that finds it.

    handlers = HandlerRegistry()

    @handlers.handler("thumbnail", timeout=30, retry_on=(OSError,))
    async def thumbnail(ctx: JobCtx, payload: dict) -> JobOutcome | None: ...

A handler answers with a `JobOutcome` (`runtime/outcome.py`), gets a `JobCtx` (`runtime/context.py`), and any
exception it raises is a `Failed`. The last registration of a kind wins.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from forge_jobs.names import check_name
from forge_jobs.runtime.executors.executor import Executor, choose, is_coroutine_function
from forge_jobs.runtime.executors.in_child import in_child
from forge_jobs.runtime.executors.thread import on_thread
from forge_jobs.runtime.handler_function import Decorator, HandlerFunction
from forge_jobs.runtime.handler_options import HandlerOptions, options_of
from forge_jobs.runtime.hooks import Hooks
from forge_jobs.runtime.lifespan import Lifespans, take
from forge_jobs.runtime.outcome import JobOutcome
from forge_jobs.runtime.payloads import PLAIN, PayloadReader, reader_of
from forge_jobs.runtime.rate_limit import check_affordable, declare
from forge_jobs.runtime.signature import annotation_of, is_context, positional, resources_of
from forge_jobs.storage.error import ConfigError, InvalidInput
from forge_jobs.storage.types.rate_limit import Gate, RateLimitDeclaration
from forge_jobs.storage.types.schedule import ScheduleDeclaration

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.env import RuntimeEnv

log = logging.getLogger("forge_jobs.handlers")

Run: TypeAlias = "Callable[[JobCtx, Any], Awaitable[JobOutcome | None]]"
Call: TypeAlias = "Callable[[JobCtx, Any], Any]"
"""The handler's function itself: gives an outcome, or a coroutine of one."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


@runtime_checkable
class JobHandler(Protocol):
    """Runs the jobs of one kind."""

    @property
    def kind(self) -> str: ...

    async def run(self, ctx: JobCtx, payload: Any) -> JobOutcome | None: ...


@runtime_checkable
class ResidentHandler(Protocol):
    """A handler that keeps something for as long as a runtime works, such as children of its own."""

    async def runtime_started(self, env: RuntimeEnv) -> None:
        """Before the first claim. What it raises fails the start. Not called if it is registered later."""
        ...

    async def runtime_stopping(self, env: RuntimeEnv) -> None:
        """When there are no more claims; jobs may still run. The shutdown waits a few seconds for its end."""
        ...


@dataclass(frozen=True, slots=True)
class RegisteredHandler:
    """A handler with its options: what the registry holds."""

    kind: str
    run: Run
    options: HandlerOptions = dataclasses.field(default_factory=HandlerOptions)
    executor: Executor = Executor.ASYNC
    call: Call | None = None
    """The handler's function, for whoever calls it elsewhere than `run`."""
    reader: PayloadReader = PLAIN
    """How its payloads are read. `run` and `call` get what this decodes."""
    resources: tuple[str, ...] = ()
    is_async: bool = True
    """Whether its function gives a coroutine."""
    is_resident: bool = False
    """Whether it keeps something in its worker, see `ResidentHandler`."""

    def on(self, executor: Executor) -> RegisteredHandler:
        """The same run elsewhere: the executor is one that fits."""
        assert self.call is not None
        return dataclasses.replace(self, run=_run_on(executor, self.call), executor=executor)

    def instead(self, run: Run) -> RegisteredHandler:
        """The same with another function in its place, on the event loop."""
        return dataclasses.replace(self, run=run, executor=Executor.ASYNC)

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of its payloads; `{}` takes everything."""
        return self.reader.schema()


class HandlerRegistry:
    """The handlers of a program by kind. Registering while a worker runs takes effect with its next claim."""

    def __init__(self) -> None:
        self._handlers: dict[str, RegisteredHandler] = {}
        self._limits: dict[str, RateLimitDeclaration] = {}
        self.priced_by_payload: frozenset[str] = frozenset()
        """Kinds of which it is known only after the claim what a job costs."""
        self._schedules: dict[str, ScheduleDeclaration] = {}
        self._functions: dict[str, Callable[..., Any]] = {}
        self._residents: dict[str, ResidentHandler] = {}
        self.lifespans = Lifespans()
        self.hooks = hooks = Hooks()
        self.before_run, self.after_run = hooks.before_run, hooks.after_run
        self.on_dead, self.middleware = hooks.on_dead, hooks.middleware
        self.version = 0
        """Grows with every registration, so that a worker notices new kinds."""

    def handler(self, kind: str, **options: Any) -> Decorator:
        """Register the decorated function under `kind`; `options` are those of `HandlerOptions`.

        The function takes `(ctx, payload)`, `(ctx)` or `(payload)`: a parameter named `ctx` or annotated `JobCtx`
        gets the context, another one the payload, read into the type it is annotated with. Keyword-only ones get the
        resources of their names, see `lifespan`. What comes back is called like the function, and also enqueues.

        Raises:
            ConfigError: the function fits none of these or not its executor, its payload's type cannot be looked up or
                read, or an option is unknown or out of range.
        """

        def register(function: Callable[..., Any]) -> HandlerFunction[Any, Any, Any]:
            plain = function.function if isinstance(function, HandlerFunction) else function
            call, reader = _adapt(plain, kind)
            entry = _registered(check_name(kind, "kind"), call, plain, options)
            entry = dataclasses.replace(entry, reader=reader, resources=resources_of(plain))
            self._add(entry)
            made: HandlerFunction[Any, Any, Any] = HandlerFunction(plain, entry)
            self._functions[kind] = made
            return made

        return register

    def register(self, handler: JobHandler, **options: Any) -> None:
        """Register an object with a `kind` and an async `run(ctx, payload)`. Registering a kind again replaces it.

        It may bring options of its own as a mapping `handler_options`; those given here come first. With
        `executor="process"`, its own or its queue's, its `run` is called in a child process.
        """
        kind = check_name(getattr(handler, "kind", None), "kind")
        if not inspect.iscoroutinefunction(getattr(handler, "run", None)):
            raise ConfigError(f"the handler for kind {kind!r} needs an async method run(ctx, payload)")
        own: Mapping[str, Any] = getattr(handler, "handler_options", {})
        entry = _registered(kind, handler.run, handler.run, {**own, **options})
        self._add(dataclasses.replace(entry, is_resident=isinstance(handler, ResidentHandler)))
        if isinstance(handler, ResidentHandler):
            self._residents[kind] = handler

    def residents(self) -> list[ResidentHandler]:
        """The handlers that want to know when a runtime starts and stops."""
        return list(self._residents.values())

    def lifespan(self, function: _Function) -> _Function:
        """Provide a resource under the name of the function, an async generator that yields it once.

            @handlers.lifespan
            async def client() -> AsyncIterator[httpx.AsyncClient]:
                async with httpx.AsyncClient() as client:
                    yield client

            @handlers.handler("page.fetch")
            async def fetch(ctx: JobCtx, page: Page, *, client: httpx.AsyncClient) -> None: ...

        Handlers and hooks get it as a keyword-only parameter of that name, or from `ctx.state`; a later lifespan as a
        plain parameter. Each process makes it before its first claim, in the order of declaration, and closes it after
        its last handler ended. If one cannot be made the worker ends.

        Raises:
            ConfigError: the function is no async generator, or takes what no lifespan before it provides.
        """
        self.lifespans.add(function)
        return function

    def check_resources(self) -> None:
        """Raises `ConfigError` if a handler or a hook takes a resource that no lifespan provides."""
        takers = {f"the handler for kind {kind!r}": entry.resources for kind, entry in self._handlers.items()}
        for taker, names in {**takers, **self.hooks.resources()}.items():
            for name in names:
                if name not in self.lifespans:
                    raise ConfigError(
                        f"{taker} takes the resource {name!r}, which no @handlers.lifespan provides; there is "
                        f"{', '.join(self.lifespans.names) or 'none'}"
                    )

    def schema(self, kind: str) -> dict[str, Any]:
        """The JSON Schema (2020-12) of the payloads of a kind; `{}` takes everything.

        Raises:
            ConfigError: the kind has no handler here.
        """
        entry = self._handlers.get(kind)
        if entry is None:
            raise ConfigError(f"there is no handler for kind {kind!r}; there are {', '.join(self.kinds()) or 'none'}")
        return entry.schema()

    def limit(
        self,
        scope: str,
        *,
        capacity: float | None = None,
        refill_per_s: float | None = None,
        per_key: bool = False,
    ) -> None:
        """Declare a rate limit: workers make it, with a full bucket, where it is missing. What an operator tuned stays.

        In any t seconds at most capacity + t × refill_per_s tokens are granted, over all processes. `per_key`: scopes
        `scope:key` have a bucket each, made when first used. The numbers of `slack` and `gh` may be left out.

        Raises:
            ConfigError: a number is missing or out of range, or a handler's cost is more than the capacity.
        """
        declaration = declare(scope, capacity, refill_per_s, per_key=per_key)
        limits_then = {**self._limits, scope: declaration}
        for kind, entry in self._handlers.items():
            if entry.options.price is not None:
                check_affordable(kind, entry.options.price, limits_then)
        self._limits = limits_then
        self.version += 1

    def limits(self) -> list[RateLimitDeclaration]:
        """The declared rate limits by scope."""
        return [self._limits[scope] for scope in sorted(self._limits)]

    def gates(self) -> list[Gate]:
        """The kinds that a claim pays for, by kind."""
        found = [(kind, self._handlers[kind].options.price) for kind in self.kinds()]
        return [gate for kind, price in found if price is not None and (gate := price.gate(kind)) is not None]

    def schedule(self, expr: str, *, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        """Declare a schedule for the kind of the decorated handler; it stands above `handler`.

            @handlers.schedule("0 3 * * *", zone="Europe/Berlin")
            @handlers.handler("clean_up")
            async def clean_up(ctx: JobCtx) -> None: ...

        `name` is the kind if not given, `settings` are those of `ScheduleDeclaration`. Every worker brings what it
        declares into the store when it starts. One function may have several schedules.

        Raises:
            ConfigError: the function is no handler of this registry, or a setting is unknown or not legal.
        """

        def declare(function: _Function) -> _Function:
            kind = next((kind for kind, one in self._functions.items() if one is function), None)
            if kind is None:
                raise ConfigError(
                    f"schedule {name or expr!r} stands on {getattr(function, '__name__', function)!r}, which is no "
                    "handler yet; put @handlers.schedule(…) above @handlers.handler(…)"
                )
            self.declare(_declaration({"name": name or kind, "kind": kind, "expr": expr, **settings}))
            return function

        return declare

    def declare(self, declaration: ScheduleDeclaration) -> None:
        """Declare a schedule for a kind, whether or not it has a handler here. Its name again replaces it."""
        from forge_jobs.storage.schedule_check import check_declaration

        try:
            check_declaration(declaration)
        except InvalidInput as error:
            raise ConfigError(f"schedule {declaration.name!r}: {error}") from error
        self._schedules[declaration.name] = declaration

    def schedules(self) -> list[ScheduleDeclaration]:
        """The declared schedules by name."""
        return [self._schedules[name] for name in sorted(self._schedules)]

    def get(self, kind: str) -> RegisteredHandler | None:
        return self._handlers.get(kind)

    def kinds(self) -> list[str]:
        """The registered kinds, sorted."""
        return sorted(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, kind: object) -> bool:
        return kind in self._handlers

    def __repr__(self) -> str:
        return f"HandlerRegistry({', '.join(self.kinds())})"

    def _add(self, entry: RegisteredHandler) -> None:
        if entry.options.price is not None:
            check_affordable(entry.kind, entry.options.price, self._limits)
        if entry.kind in self._handlers:
            log.info("handler_replaced kind=%s", entry.kind)
        self._handlers[entry.kind] = entry
        self._residents.pop(entry.kind, None)
        self.priced_by_payload = frozenset(
            kind
            for kind, one in self._handlers.items()
            if one.options.price is not None and one.options.price.gate(kind) is None
        )
        self.version += 1


def _declaration(given: dict[str, Any]) -> ScheduleDeclaration:
    from forge_jobs.config import unknown_key

    legal = {f.name for f in dataclasses.fields(ScheduleDeclaration) if f.init}
    for name in given:
        if name not in legal:
            raise ConfigError(f"schedule {given['name']!r}: {unknown_key(name, legal)}")
    return ScheduleDeclaration(**given)


def _registered(kind: str, call: Call, function: Callable[..., Any], options: dict[str, Any]) -> RegisteredHandler:
    """The handler with the `run` of its executor: a coroutine that calls it, or waits for it to be called elsewhere."""
    given = options_of(kind, options)
    is_async = is_coroutine_function(function)
    executor = choose(given.executor, kind, is_async=is_async)
    return RegisteredHandler(kind, _run_on(executor, call), given, executor, call, is_async=is_async)


def _run_on(executor: Executor, call: Call) -> Run:
    match executor:
        case Executor.ASYNC:
            return call
        case Executor.THREAD:
            return on_thread(call)
        case Executor.PROCESS:
            return in_child


def _adapt(function: Callable[..., Any], kind: str) -> tuple[Call, PayloadReader]:
    """The function as `call(ctx, payload)`, whatever part of that it takes, and how its payload is read."""
    parameters, names = positional(function), resources_of(function)
    order = [is_context(p) for p in parameters]
    if order not in ([True, False], [False, True], [True], [False]):
        raise ConfigError(
            f"the handler for kind {kind!r} must take (ctx, payload), (ctx) or (payload), where the context is named "
            f"`ctx` or annotated JobCtx; it takes ({', '.join(p.name for p in parameters)})"
        )
    reader = next((_reader(function, p, kind) for p in parameters if not is_context(p)), PLAIN)
    if names:
        return lambda ctx, payload: _in_order(partial(function, **take(ctx.state, names)), order)(ctx, payload), reader
    return _in_order(function, order), reader


def _in_order(function: Callable[..., Any], order: list[bool]) -> Call:
    match order:
        case [True, False]:
            return function
        case [False, True]:
            return lambda ctx, payload: function(payload, ctx)
        case [True]:
            return lambda ctx, payload: function(ctx)
    return lambda ctx, payload: function(payload)


def _reader(function: Callable[..., Any], parameter: inspect.Parameter, kind: str) -> PayloadReader:
    try:
        return reader_of(annotation_of(function, parameter))
    except ConfigError as error:
        raise ConfigError(f"the handler for kind {kind!r}: {error}") from error
