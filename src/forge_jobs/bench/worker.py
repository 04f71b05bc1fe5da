"""The worker process of a measurement: `python -m forge_jobs.bench.worker SLOTS drain|serve`.

The store is in the environment. It says `ready` on stdout and waits for a line on stdin. `drain` then works until the
store is empty. `serve` works from the start; at the line it stops and prints, as JSON, how long each pickup took in
milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any, Final

from forge_jobs.bench.measure import NOOP, QUEUE
from forge_jobs.bench.scratch import Store
from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.queue_runtime import QueueRuntime

SENT_NS: Final = "sent_ns"
"""The payload's key that says when a job was enqueued, on the host's monotonic clock."""

handlers = HandlerRegistry()


@handlers.handler(NOOP)
async def noop(ctx: JobCtx, payload: Any) -> None:
    pass


def pickup_handlers(waits_ms: list[float]) -> HandlerRegistry:
    """A registry whose only handler notes how long its job took to reach it."""
    registry = HandlerRegistry()

    @registry.handler(NOOP)
    async def pickup(ctx: JobCtx, payload: Any) -> None:
        waits_ms.append((time.monotonic_ns() - payload[SENT_NS]) / 1e6)

    return registry


async def drain(store: Store, slots: int) -> None:
    async with store.open() as storage:
        runtime = QueueRuntime(storage, handlers, queues=[QUEUE], slots=slots)
        await _told()
        await runtime.drain()


async def serve(store: Store, slots: int) -> None:
    waits_ms: list[float] = []
    async with store.open() as storage:
        runtime = QueueRuntime(storage, pickup_handlers(waits_ms), queues=[QUEUE], slots=slots)
        await runtime.start()
        await _told()
        await runtime.stop()
    _say(json.dumps(waits_ms))


async def _told() -> None:
    """Until the measurement sends a line, or is gone."""
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _slots, _what = sys.argv[1:]
    asyncio.run({"drain": drain, "serve": serve}[_what](Store.of_environment(os.environ), int(_slots)))
