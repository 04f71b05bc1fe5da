"""A context to call a handler with, alone: no queue, no worker.

ctx = make_ctx(attempt=3)
assert await charge(ctx, {"order": 7}) == Dead("the card was refused")
"""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from forge_jobs.clock import Clock, SystemClock, to_us
from forge_jobs.config import RuntimeConfig
from forge_jobs.ids import new_id
from forge_jobs.payload import encode_payload
from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.handler import HandlerRegistry, RegisteredHandler
from forge_jobs.runtime.handler_options import HandlerOptions
from forge_jobs.runtime.routing import DefaultRouter, Router
from forge_jobs.runtime.running import Run
from forge_jobs.runtime.worker import Slot
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import JobRecord


def make_ctx(
    storage: Storage | None = None,
    *,
    kind: str = "test",
    queue: str = "default",
    payload: Any = None,
    attempt: int = 1,
    max_attempts: int = 5,
    fence: int = 1,
    timeout: float | None = None,
    scheduled_at: datetime | None = None,
    trace: str | None = None,
    job: JobRecord | None = None,
    handlers: HandlerRegistry | None = None,
    router: Router | None = None,
) -> JobCtx:
    """A context for one run. With a store `ctx.enqueue` and the rest write there; without one they say what is missing.

    The job of the context is in no store unless it is given: `job` is one that was claimed. `ctx.cancel.fire(reason)`
    tells the handler to stop. `timeout`, in seconds, is what `ctx.deadline` is computed from; nobody ends the call.
    """
    store = storage if storage is not None else cast("Storage", _NoStorage())
    env = RuntimeEnv(store, handlers or HandlerRegistry(), router or DefaultRouter(), RuntimeConfig(), None)
    now = store.clock.now_us()
    record = job or JobRecord(
        id=new_id(),
        queue=queue,
        kind=kind,
        payload=encode_payload(payload if payload is not None else {}),
        attempts=attempt,
        max_attempts=max_attempts,
        crashes=0,
        throttles=0,
        fence=fence,
        priority=0,
        enqueued_us=now,
        scheduled_us=now if scheduled_at is None else to_us(scheduled_at),
        started_us=now,
        dedupe_key=None,
        parent_id=None,
        trace=trace,
    )
    slot = cast("Slot", SimpleNamespace(process_id=f"{record.queue}-0-{env.host_id}"))
    return JobCtx(Run(env, slot, record, RegisteredHandler(record.kind, _nothing, _timed(timeout)), alone=False))


def _timed(timeout: float | None) -> HandlerOptions:
    return HandlerOptions(timeout=timeout)


async def _nothing(ctx: JobCtx, payload: Any) -> None:
    """The handler of a context that was made by hand: its caller runs it."""


class _NoStorage:
    """What a context without a store has in its place."""

    clock: Clock = SystemClock()

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(f"this ctx has no store, so there is no storage.{name}; give one: make_ctx(storage)")
