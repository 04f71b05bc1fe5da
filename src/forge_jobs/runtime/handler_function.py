"""What the decorator makes of a function: it is called as before, and knows how jobs of its kind are enqueued.

    @handlers.handler("letter.send")
    async def send(ctx: JobCtx, letter: Letter) -> None: ...

    await send.enqueue(storage, Letter(to="a@example.org"), delay=60)
    await ctx.enqueue_bulk([send.request(letter) for letter in letters])
    await send(ctx, Letter(to="a@example.org"))         # in a test: the function itself

Type checkers hold the payload against the annotation of the function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    overload,
)

from forge_jobs.runtime.outcome import JobOutcome
from forge_jobs.runtime.payloads import PLAIN
from forge_jobs.runtime.routing import DefaultRouter, fill
from forge_jobs.storage.types.job import EnqueueRequest, OnConflict

if TYPE_CHECKING:
    from typing import Unpack

    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.handler import RegisteredHandler

S = ParamSpec("S")
P = TypeVar("P")
R = TypeVar("R", bound="Coroutine[Any, Any, JobOutcome | None] | JobOutcome | None")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


class RequestOptions(TypedDict, total=False):
    """The fields of `EnqueueRequest` besides kind and payload."""

    queue: str | None
    priority: int
    max_attempts: int | None
    dedupe_key: str | None
    on_conflict: OnConflict | Literal["skip", "replace", "error"]
    unique_for: timedelta | float | None
    run_at: datetime | None
    delay: timedelta | float | None
    expires_at: datetime | None
    ttl: timedelta | float | None
    id: str | None
    tags: Sequence[str]
    trace: Mapping[str, str] | None


class Unread:
    """The payload of a handler that takes none: anything, or nothing."""


class Enqueuer(Protocol[A_co]):
    """Whatever takes requests: a context, a transaction, a runtime, a `SyncQueue`."""

    def enqueue(self, request: EnqueueRequest, /) -> A_co: ...


class HasJobs(Protocol[A_co]):
    """A `Storage`."""

    @property
    def jobs(self) -> Enqueuer[A_co]: ...


class HandlerFunction(Generic[S, P, R]):
    """A function that is the handler of a kind, with the payload `P`."""

    __name__: str

    def __init__(self, function: Callable[S, R], entry: RegisteredHandler) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.registered = entry

    @property
    def kind(self) -> str:
        return self.registered.kind

    def __call__(self, *args: S.args, **kwargs: S.kwargs) -> R:
        return self.function(*args, **kwargs)

    @overload
    def request(
        self: HandlerFunction[S, Unread, R], payload: object = ..., **options: Unpack[RequestOptions]
    ) -> EnqueueRequest: ...
    @overload
    def request(self, payload: P, **options: Unpack[RequestOptions]) -> EnqueueRequest: ...
    def request(self, payload: Any = Unread, **options: Any) -> EnqueueRequest:
        """A request for a job of this kind. `options` are the fields of `EnqueueRequest`; the handler's own `queue` and
        `max_attempts` are filled in.

        A typed payload is written as JSON here, and must be read back as it was given.

        Raises:
            InvalidPayload: it is of another type, or does not survive the way to the handler; names the path.
        """
        own = self.registered.options
        made = EnqueueRequest(self.kind, **options)
        if payload is not Unread:
            made = replace(made, payload=self.registered.reader.encode(payload))
        elif self.registered.reader.expected != PLAIN.expected:
            self.registered.reader.encode(made.payload)  # refused, unless the type takes the default
        if made.queue is None and own.queue is not None:
            made = replace(made, queue=own.queue)
        if made.max_attempts is None and own.max_attempts is not None:
            made = replace(made, max_attempts=own.max_attempts)
        return made

    @overload
    def enqueue(
        self: HandlerFunction[S, Unread, R],
        where: Enqueuer[A] | HasJobs[A],
        payload: object = ...,
        **options: Unpack[RequestOptions],
    ) -> A: ...
    @overload
    def enqueue(self, where: Enqueuer[A] | HasJobs[A], payload: P, **options: Unpack[RequestOptions]) -> A: ...
    def enqueue(self, where: Any, payload: Any = Unread, **options: Any) -> Any:
        """Enqueue a job of this kind into `where`: a `Storage`, a handler's `ctx`, a transaction, a runtime, or a
        `SyncQueue`, which needs no `await`.

        A queue that neither the request nor the handler names is filled in by `where`; a `Storage` has no router, and
        takes `default`.

        Raises:
            InvalidPayload: as `request`. And whatever `where.enqueue` raises.
        """
        request = self.request(payload, **options)
        if not hasattr(where, "enqueue"):
            where, request = where.jobs, fill(request, DefaultRouter())
        return where.enqueue(request)


class Decorator(Protocol):
    """What `handlers.handler(kind)` is: it keeps the function callable, and finds the type of its payload."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[JobCtx, P, S], R], /
    ) -> HandlerFunction[Concatenate[JobCtx, P, S], P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[JobCtx, S], R], /
    ) -> HandlerFunction[Concatenate[JobCtx, S], Unread, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[P, JobCtx, S], R], /
    ) -> HandlerFunction[Concatenate[P, JobCtx, S], P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[P, S], R], /) -> HandlerFunction[Concatenate[P, S], P, R]: ...
