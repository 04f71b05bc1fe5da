"""Which queue a kind goes to when the request names none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from forge_jobs.storage.types.job import EnqueueRequest

if TYPE_CHECKING:
    from forge_jobs.runtime.handler import HandlerRegistry


class Router(Protocol):
    """Names the queue of a kind."""

    def route(self, kind: str) -> str: ...


@dataclass(frozen=True, slots=True)
class DefaultRouter:
    """Every kind goes to one queue."""

    queue: str = "default"

    def route(self, kind: str) -> str:
        return self.queue


@dataclass(frozen=True, slots=True)
class KindPrefixRouter:
    """The first prefix that fits decides; a kind that fits none, or an empty one, goes to `default`.

    The ready preset sends `gh_…` to `gh` and `slack_…` to `slack`.
    """

    prefixes: Mapping[str, str] = field(default_factory=lambda: {"gh_": "gh", "slack_": "slack"})
    default: str = "default"

    def route(self, kind: str) -> str:
        for prefix, queue in self.prefixes.items():
            if prefix and kind.startswith(prefix):
                return queue
        return self.default


def fill(
    request: EnqueueRequest,
    router: Router,
    handlers: HandlerRegistry | None = None,
    *,
    max_attempts: int | None = None,
) -> EnqueueRequest:
    """`request` with its queue and max_attempts filled in.

    A queue on the request wins, then the handler's `queue` option if the registry is at hand, then the router.
    `max_attempts` on the request wins, then the handler's, then the one given here.
    """
    entry = handlers.get(request.kind) if handlers is not None else None
    if request.queue is None:
        hint = entry.options.queue if entry is not None else None
        request = replace(request, queue=hint or router.route(request.kind))
    if request.max_attempts is None:
        own = entry.options.max_attempts if entry is not None else None
        request = replace(request, max_attempts=own if own is not None else max_attempts)
    return request
