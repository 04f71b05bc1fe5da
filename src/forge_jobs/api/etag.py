"""Entity tags of settings, so that two people do not overwrite each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request

from forge_jobs.api.answer import encode
from forge_jobs.api.problem import Problem
from forge_jobs.redact import redact
from forge_jobs.storage.types.queue import QueueSettings
from forge_jobs.storage.types.rate_limit import RateLimit
from forge_jobs.storage.types.schedule import SETTINGS, Schedule
from forge_jobs.view.queue import queue_view
from forge_jobs.view.rate_limit import rate_limit_view
from forge_jobs.view.schedule import schedule_view

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tagged(Generic[T]):
    """Settings of one sort. Its tag is of `identity` alone: what people set, not what workers do with it."""

    shown: Callable[[T], dict[str, Any]]
    identity: Callable[[T], object]

    def tag(self, stored: T) -> str:
        """The tag of settings as they are stored."""
        return f'"{hashlib.sha256(encode(self.identity(stored))).hexdigest()[:16]}"'

    def headers(self, stored: T) -> Mapping[str, str]:
        return {"ETag": self.tag(stored)}

    def check(self, request: Request) -> Callable[[T | None], None]:
        """For the store, in the transaction of a change: refuses it if what is stored is not what the caller saw.

        Without `If-Match` nothing is compared.

        Raises, when it is called:
            Problem: somebody changed it since, or there is none. It tells what is stored.
        """
        wanted = request.headers.get("if-match")

        def check(stored: T | None) -> None:
            if wanted is None or (wanted.strip() == "*" and stored is not None):
                return
            if stored is None:
                raise Problem("precondition_failed", "there is none, so it cannot be as you saw it")
            tag = self.tag(stored)
            if tag not in [one.strip().removeprefix("W/") for one in wanted.split(",")]:
                raise Problem(
                    "precondition_failed",
                    "it was changed since you looked; `current` is what it is now",
                    headers={"ETag": tag},
                    current={**self.shown(stored), "etag": tag},
                )

        return check


def redacted(schedule: Schedule) -> dict[str, Any]:
    """A schedule without the secrets of its payload."""
    shown = schedule_view(schedule)
    shown["payload"] = redact(shown["payload"])
    difference = shown["differences"].get("payload")
    if difference is not None:
        difference.update(declared=redact(difference["declared"]), stored=redact(difference["stored"]))
    return shown


def _schedule(schedule: Schedule) -> object:
    """Not the revision, which grows with each tick; not secrets, as the hash of a short one gives it away."""
    shown = redacted(schedule)
    return schedule.updated_at, [shown[name] for name in SETTINGS]


QUEUE: Final[Tagged[QueueSettings]] = Tagged(
    queue_view,
    lambda q: (q.max_workers, q.retain_done_days, q.retain_dead_days, q.backoff, q.cool_down, q.max_pending),
)
SCHEDULE: Final[Tagged[Schedule]] = Tagged(redacted, _schedule)
RATE_LIMIT: Final[Tagged[RateLimit]] = Tagged(rate_limit_view, lambda limit: (limit.capacity, limit.refill_per_s))
