"""One table of handlers, as it stands for every executor: what each does, and what becomes of its job.

The module is imported by the tests and by the child processes of the workers that they start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from forge_jobs import (
    Dead,
    DeadError,
    Done,
    DoneError,
    EnqueueRequest,
    Failed,
    FailedError,
    HandlerRegistry,
    JobCtx,
    Throttled,
    ThrottledError,
)

LONG_S: Final = 20.0
STUBBORN_S: Final = 1.0
"""How long a handler goes on that hears nothing."""
QUICK: Final = {"timeout": 0.3, "cancel_grace": 0.1, "backoff": [60]}
PATIENT: Final = {"timeout": 0.3, "cancel_grace": LONG_S, "backoff": [60]}


class Unshowable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Final_(Exception):
    """Ends its job."""


@dataclass(frozen=True)
class Row:
    """What a handler does, and what its job is after it: status, and what its last error says, if there is one."""

    act: Callable[[], Any]
    status: str
    error: str | None = None
    attempts: int = 1
    options: dict[str, Any] | None = None


def raising(make: Callable[[], BaseException]) -> Callable[[], Any]:
    def act() -> Any:
        raise make()

    return act


def caused() -> Any:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


ROWS: Final[dict[str, Row]] = {
    "none": Row(lambda: None, "done"),
    "done": Row(Done, "done"),
    "failed": Row(lambda: Failed("not today"), "failed", "not today"),
    "dead": Row(lambda: Dead("never"), "dead", "never"),
    "throttled": Row(lambda: Throttled(600, cool_down=False), "pending", attempts=0),
    "throttled_without_hint": Row(lambda: Throttled(cool_down=False), "pending", attempts=0),
    "done_raised": Row(raising(DoneError), "done"),
    "failed_raised": Row(raising(lambda: FailedError("deep")), "failed", "deep"),
    "dead_raised": Row(raising(lambda: DeadError("deep")), "dead", "deep"),
    "throttled_raised": Row(raising(lambda: ThrottledError(600, cool_down=False)), "pending", attempts=0),
    "senseless_hint": Row(lambda: Throttled(-1), "failed", "invalid retry_after -1"),
    "error": Row(raising(lambda: OSError("disk on fire")), "failed", "disk on fire"),
    "cause": Row(caused, "failed", "outer: KeyError('inner')"),
    "unshowable": Row(raising(Unshowable), "failed", "Unshowable"),
    "dead_on": Row(raising(lambda: Final_("enough")), "dead", "enough", options={"dead_on": Final_}),
    "retry_on": Row(raising(lambda: OSError("no")), "dead", "no", options={"retry_on": Final_}),
    "own_backoff": Row(raising(lambda: OSError("no")), "failed", options={"backoff": lambda attempt, error: 600}),
    "system_exit": Row(raising(lambda: SystemExit(3)), "failed", "SystemExit(3)"),
    "keyboard_interrupt": Row(raising(KeyboardInterrupt), "failed", "KeyboardInterrupt"),
    "generator_exit": Row(raising(GeneratorExit), "failed", "GeneratorExit"),
    "stop_iteration": Row(raising(lambda: StopIteration(3)), "failed", "StopIteration"),
    "memory_error": Row(raising(MemoryError), "failed", "MemoryError"),
    "recursion_error": Row(raising(RecursionError), "failed", "RecursionError"),
    "cancelled_error": Row(raising(asyncio.CancelledError), "failed", "nobody cancelled it"),
    "text": Row(lambda: "done", "failed", "a str"),
    "class": Row(lambda: Done, "failed", "the class Done itself"),
    "huge_answer": Row(lambda: "x" * 8_000_000, "failed", "a str"),
    "huge_error": Row(raising(lambda: ValueError("x" * 8_000_000)), "failed", " cut …"),
}


async def _looped_wait(ctx: JobCtx) -> str:
    return (await ctx.cancel.wait()).value


def _blocking_wait(ctx: JobCtx) -> str:
    return str(ctx.cancel.wait_sync(LONG_S))


def fill(handlers: HandlerRegistry, prefix: str, executor: str, *, plain: bool) -> None:
    """Register the table under `prefix`, as plain functions or as `async def`."""

    def add(name: str, act: Callable[[JobCtx], Any], **options: Any) -> None:
        if plain:

            def function(ctx: JobCtx) -> Any:
                return act(ctx)

            handlers.handler(f"{prefix}.{name}", executor=executor, **options)(function)
        else:

            async def looped(ctx: JobCtx) -> Any:
                answer = act(ctx)
                return await answer if asyncio.iscoroutine(answer) else answer

            handlers.handler(f"{prefix}.{name}", executor=executor, **options)(looped)

    def just(act: Callable[[], Any]) -> Callable[[JobCtx], Any]:
        return lambda ctx: act()

    for name, row in ROWS.items():
        add(name, just(row.act), **(row.options or {}))

    def heed(ctx: JobCtx) -> Any:
        async def looped() -> Any:
            return Failed(f"told: {await _looped_wait(ctx)}")

        return Failed(f"told: {_blocking_wait(ctx)}") if plain else looped()

    def finish(ctx: JobCtx) -> Any:
        async def looped() -> Any:
            await ctx.cancel.wait()

        return None if plain and ctx.cancel.wait_sync(LONG_S) else looped()

    def ignore(ctx: JobCtx) -> Any:
        async def looped() -> Any:
            until = time.monotonic() + STUBBORN_S
            while time.monotonic() < until:
                try:
                    await asyncio.sleep(STUBBORN_S)
                except asyncio.CancelledError:
                    continue

        return time.sleep(STUBBORN_S) if plain else looped()

    def follow(ctx: JobCtx) -> Any:
        async def looped() -> Any:
            ctx.log.info("following up")
            ctx.progress(1, 2, "halfway")
            first = await ctx.enqueue(EnqueueRequest("child", {"of": ctx.job_id, "n": 10**30}, delay=600))
            both = await ctx.enqueue_bulk(
                [EnqueueRequest("child", queue="named", tags=["a"]), EnqueueRequest("child", dedupe_key=ctx.job_id)]
            )
            again = await ctx.enqueue(EnqueueRequest("child", dedupe_key=ctx.job_id))
            return Dead(" ".join([first.id, *(one.id for one in both), type(again).__name__, again.id]))

        return ctx.run_sync(looped()) if plain else looped()

    def refused(ctx: JobCtx) -> Any:
        return ctx.run_sync(_refused(ctx)) if plain else _refused(ctx)

    add("heed_timeout", heed, **PATIENT)
    add("finish_late", finish, **PATIENT)
    add("heed", heed, cancel_grace=LONG_S)
    add("ignore_timeout", ignore, **QUICK)
    add("ignore", ignore, cancel_grace=0.1)
    add("follow", follow)
    add("refused", refused)


async def _refused(ctx: JobCtx) -> Any:
    from forge_jobs.storage.error import InvalidPayload

    try:
        await ctx.enqueue(EnqueueRequest("child", {"tuple": (1, 2)}))
    except InvalidPayload as error:
        return Dead(f"{error.field} {error.reason}")
    return Done()


handlers = HandlerRegistry()
fill(handlers, "async", "async", plain=False)
fill(handlers, "thread", "thread", plain=True)
fill(handlers, "process", "process", plain=True)
fill(handlers, "process-async", "process", plain=False)
PATH: Final = f"{__name__}:handlers"
