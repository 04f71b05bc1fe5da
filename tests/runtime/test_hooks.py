"""Hooks and middleware: called around every handler, harmless when they fail, free when there are none."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import ConfigError, Dead, DeadError, Done, Failed, HandlerRegistry, JobCtx, JobOutcome, Throttled
from forge_jobs.runtime import deaths
from forge_jobs.runtime.hooks import CallNext
from forge_jobs.runtime.outcome import Released, RunOutcome
from forge_jobs.storage.types.job import JobRow
from forge_jobs.testing.cluster import until

from .world import World, scaled


class Log:
    """What was called, in order."""

    def __init__(self, world: World) -> None:
        self.lines: list[str] = []
        handlers = world.handlers

        @handlers.before_run
        async def before(ctx: JobCtx, payload: Any) -> None:
            self.lines.append(f"before {payload}")

        @handlers.middleware
        async def outer(ctx: JobCtx, payload: Any, call_next: CallNext) -> JobOutcome:
            self.lines.append("outer in")
            try:
                return await call_next(ctx, payload)
            finally:
                self.lines.append("outer out")

        @handlers.middleware
        async def inner(ctx: JobCtx, payload: Any, call_next: CallNext) -> JobOutcome:
            answer = await call_next(ctx, payload)
            self.lines.append(f"inner {answer}")
            return answer

        @handlers.after_run
        async def after(ctx: JobCtx, outcome: RunOutcome) -> None:
            self.lines.append(f"after {outcome}")


async def test_hooks_and_middleware_stand_around_the_handler_in_order(world: World) -> None:
    log = Log(world)

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> None:
        log.lines.append("handler")

    await world.work()
    await world.when(await world.put("probe", 5), "done")
    assert log.lines == ["before 5", "outer in", "handler", "inner Done()", "outer out", "after Done()"]


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (Failed("no"), "after Failed(message='no')"),
        (Dead("never"), "after Dead(message='never')"),
        (ValueError("broken"), "after Failed(message='broken')"),
        (DeadError("never"), "after Dead(message='never')"),
    ],
)
async def test_after_run_hears_what_is_recorded(world: World, answer: Any, heard: str) -> None:
    log = Log(world)

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> JobOutcome | None:
        if isinstance(answer, BaseException):
            raise answer
        result: JobOutcome = answer
        return result

    await world.work()
    await world.when(await world.put("probe"), "failed", "dead")
    assert log.lines[-2:] == ["outer out", heard]


async def test_after_run_hears_of_throttles_timeouts_and_releases(world: World) -> None:
    heard: list[RunOutcome] = []

    @world.handlers.after_run
    async def after(ctx: JobCtx, outcome: RunOutcome) -> None:
        heard.append(outcome)

    @world.handlers.handler("throttled")
    async def throttled(ctx: JobCtx) -> Throttled:
        return Throttled(60, cool_down=False)

    @world.handlers.handler("late", timeout=0.05, cancel_grace=0.05)
    async def late(ctx: JobCtx) -> None:
        await asyncio.sleep(60)

    began = asyncio.Event()

    @world.handlers.handler("long")
    async def long(ctx: JobCtx) -> None:
        began.set()
        await ctx.cancel.wait()
        ctx.cancel.raise_if_cancelled()

    runtime = await world.work()
    await world.when(await world.put("throttled"), "pending", and_also=lambda row: row.throttles == 1)
    await world.when(await world.put("late"), "failed")
    await world.put("long")
    await began.wait()
    await runtime.stop()
    assert isinstance(heard[0], Throttled)
    assert isinstance(heard[0].retry_after, timedelta)
    assert heard[1:] == [Failed("timeout after 0.05 s"), Released()]


async def test_a_fault_before_the_run_is_a_failed_attempt_whatever_the_handler_retries(world: World) -> None:
    ran: list[str] = []

    @world.handlers.before_run
    async def check(ctx: JobCtx, payload: Any) -> None:
        match payload:
            case "fault":
                raise KeyError("no such tenant")
            case "exit":
                raise SystemExit
            case "dead":
                raise DeadError("tenant is gone")

    @world.handlers.handler("probe", retry_on=OSError, dead_on=KeyError)
    async def probe(payload: Any) -> None:
        ran.append(payload)

    await world.work()
    fault = await world.when(await world.put("probe", "fault"), "failed", "dead")
    assert fault.row.status == "failed"
    assert fault.row.last_error is not None
    assert fault.row.last_error.startswith("before_run ")
    assert fault.row.last_error.endswith("check: KeyError('no such tenant')")
    assert (await world.when(await world.put("probe", "exit"), "failed", "dead")).row.status == "failed"
    dead = await world.when(await world.put("probe", "dead"), "failed", "dead")
    assert (dead.row.status, dead.row.last_error) == ("dead", "tenant is gone")
    await world.when(await world.put("probe", "fine"), "done")
    assert ran == ["fine"]


async def test_hooks_run_under_the_timeout(world: World) -> None:
    @world.handlers.before_run
    async def hang(ctx: JobCtx, payload: Any) -> None:
        if payload == "before":
            await asyncio.sleep(60)

    @world.handlers.after_run
    async def hang_too(ctx: JobCtx, outcome: RunOutcome) -> None:
        if ctx.kind == "after":
            await asyncio.sleep(60)

    @world.handlers.handler("before", timeout=0.05, cancel_grace=0.05)
    async def before(payload: Any) -> None: ...

    @world.handlers.handler("after", timeout=0.05, cancel_grace=0.05)
    async def after(payload: Any) -> None: ...

    runtime = await world.work()
    late = await world.when(await world.put("before", "before"), "failed")
    assert late.row.last_error == "timeout after 0.05 s"
    await world.when(await world.put("after"), "done")
    assert runtime.env.health.counts["hook_faults"] == 1
    assert runtime.report.abandoned == 0
    await world.works_on()


async def test_a_hook_that_ignores_its_end_is_abandoned_and_the_slot_goes_on(world: World) -> None:
    let_go = asyncio.Event()

    @world.handlers.after_run
    async def deaf(ctx: JobCtx, outcome: RunOutcome) -> None:
        while ctx.kind == "probe" and not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    @world.handlers.handler("probe", timeout=0.05, cancel_grace=0.05)
    async def probe(payload: Any) -> None: ...

    runtime = await world.work()
    await world.when(await world.put("probe"), "done")
    assert runtime.report.abandoned == 1
    await world.works_on()
    let_go.set()


async def test_a_shutdown_during_a_hook_records_what_the_handler_did(world: World) -> None:
    let_go, began = asyncio.Event(), asyncio.Event()

    @world.handlers.after_run
    async def deaf(ctx: JobCtx, outcome: RunOutcome) -> None:
        began.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> None: ...

    runtime = await world.work(config=scaled(cancel_grace_s=30))
    job_id = await world.put("probe")
    await began.wait()
    await runtime.stop(0)
    row = await world.row(job_id)
    assert (row.status, row.attempts) == ("done", 1)
    let_go.set()


async def test_a_fault_after_the_run_changes_nothing_and_the_next_hook_is_called(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    @world.handlers.after_run
    async def broken(ctx: JobCtx, outcome: RunOutcome) -> None:
        raise ValueError("no metrics today")

    @world.handlers.after_run
    async def whole(ctx: JobCtx, outcome: RunOutcome) -> None:
        called.append(ctx.kind)

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> None: ...

    runtime = await world.work()
    with caplog.at_level(logging.ERROR, logger="forge_jobs.hooks"):
        await world.when(await world.put("probe"), "done")
    assert called == ["probe"]
    assert runtime.env.health.counts["hook_faults"] == 1
    assert "hook_fault hook=after_run" in caplog.text


async def test_middleware_may_answer_itself_but_not_with_nothing(world: World) -> None:
    ran: list[Any] = []

    @world.handlers.middleware
    async def gate(ctx: JobCtx, payload: Any, call_next: CallNext) -> JobOutcome:
        match payload:
            case "skip":
                return Done()
            case "refuse":
                return Dead("refused")
            case "forget":
                await call_next(ctx, payload)
                return None  # type: ignore[return-value]
            case "mend":
                try:
                    return await call_next(ctx, "fail")
                except ValueError:
                    return await call_next(ctx, "mended")
        return await call_next(ctx, payload)

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> None:
        ran.append(payload)
        if payload == "fail":
            raise ValueError("fail")

    await world.work()
    await world.when(await world.put("probe", "skip"), "done")
    refused = await world.when(await world.put("probe", "refuse"), "dead")
    assert refused.row.last_error == "refused"
    forgot = await world.when(await world.put("probe", "forget"), "failed")
    assert forgot.row.last_error is not None
    assert "gate returned None; it must return an outcome" in forgot.row.last_error
    await world.when(await world.put("probe", "mend"), "done")
    assert ran == ["forget", "fail", "mended"]


async def test_an_odd_answer_is_still_no_success_behind_middleware(world: World) -> None:
    Log(world)

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> Any:
        return "fine"

    await world.work()
    detail = await world.when(await world.put("probe"), "failed")
    assert detail.row.last_error is not None
    assert detail.row.last_error.startswith("handler returned a str")


def test_what_cannot_be_a_hook_is_refused() -> None:
    handlers = HandlerRegistry()
    with pytest.raises(ConfigError, match=r"async def <lambda>\(ctx, payload\)"):
        handlers.before_run(lambda ctx, payload: None)  # type: ignore[type-var]

    async def too_few(ctx: JobCtx) -> None: ...

    for decorator in (handlers.before_run, handlers.after_run):
        with pytest.raises(ConfigError, match="too many positional arguments"):
            decorator(too_few)
    with pytest.raises(ConfigError, match=r"calls its function as `async def too_few\(ctx, payload, call_next\)`"):
        handlers.middleware(too_few)  # type: ignore[type-var]
    assert not handlers.hooks.wraps


class Graveyard:
    """Whose deaths the hook heard of."""

    def __init__(self, handlers: HandlerRegistry) -> None:
        self.heard: dict[str, JobRow] = {}

        @handlers.on_dead
        async def bury(job: JobRow) -> None:
            self.heard[job.id] = job

    async def of(self, job_id: str) -> JobRow:
        await until(lambda: job_id in self.heard)
        return self.heard[job_id]


async def test_on_dead_hears_of_every_way_to_die_here(world: World) -> None:
    graveyard = Graveyard(world.handlers)

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx, payload: Any) -> JobOutcome | None:
        match payload:
            case "reject":
                return Dead("never")
            case "fail":
                raise ValueError("broken")
            case "cancel":
                await ctx.cancel.wait()
                raise ValueError("stopped")
        return None

    runtime = await world.work(slots=2)
    rejected = await graveyard.of(await world.put("probe", "reject"))
    assert (rejected.dead_reason, rejected.last_error, rejected.kind) == ("rejected", "never", "probe")
    exhausted = await graveyard.of(await world.put("probe", "fail", max_attempts=1))
    assert exhausted.dead_reason == "exhausted"
    cancelled = await world.put("probe", "cancel")
    await world.when(cancelled, "in_progress")
    assert await runtime.request_cancel(cancelled)
    assert (await graveyard.of(cancelled)).dead_reason == "cancelled"
    await world.when(await world.put("probe", "fail"), "failed")
    await world.when(await world.put("probe", "fine"), "done")
    assert len(graveyard.heard) == 3


async def test_a_fault_of_on_dead_harms_nobody_and_a_slow_one_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deaths, "HOOK_S", 0.05)

    @world.handlers.on_dead
    async def broken(job: JobRow) -> None:
        raise SystemExit("no mail server")

    @world.handlers.on_dead
    async def slow(job: JobRow) -> None:
        await asyncio.sleep(60)

    graveyard = Graveyard(world.handlers)

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> Dead:
        return Dead("never")

    runtime = await world.work()
    await graveyard.of(await world.put("probe"))
    assert runtime.env.health.counts["hook_faults"] == 2
    assert caplog.text.count("hook_fault hook=on_dead") == 2
    await world.works_on()


async def test_deaths_beyond_the_bound_are_dropped_and_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "WAITING_MAX", 2)
    let_go, heard = asyncio.Event(), 0

    @world.handlers.on_dead
    async def slow(job: JobRow) -> None:
        nonlocal heard
        await let_go.wait()
        heard += 1

    @world.handlers.handler("probe")
    async def probe(payload: Any) -> Dead:
        return Dead("never")

    runtime = await world.work()
    for _ in range(5):
        await world.when(await world.put("probe"), "dead")
    await until(lambda: runtime.env.health.counts["on_dead_dropped"] == 2)
    let_go.set()
    await until(lambda: heard == 3)


async def test_a_death_just_before_the_stop_is_told(world: World) -> None:
    graveyard = Graveyard(world.handlers)
    began = asyncio.Event()

    @world.handlers.handler("probe")
    async def probe(ctx: JobCtx) -> Dead:
        began.set()
        await ctx.cancel.wait()
        return Dead("stopped for ever")

    runtime = await world.work()
    job_id = await world.put("probe")
    await began.wait()
    await runtime.stop()
    assert graveyard.heard[job_id].last_error == "stopped for ever"


async def test_hooks_stand_around_handlers_on_threads_too(world: World) -> None:
    log = Log(world)

    @world.handlers.handler("probe")
    def probe(ctx: JobCtx, payload: Any) -> None:
        log.lines.append("handler")

    @world.handlers.handler("deaf", timeout=0.05, cancel_grace=0.05)
    def quick(ctx: JobCtx) -> None: ...

    @world.handlers.after_run
    async def hang(ctx: JobCtx, outcome: RunOutcome) -> None:
        if ctx.kind == "deaf":
            await asyncio.sleep(60)

    runtime = await world.work()
    await world.when(await world.put("probe", 5), "done")
    assert log.lines == ["before 5", "outer in", "handler", "inner Done()", "outer out", "after Done()"]
    await world.when(await world.put("deaf"), "done")
    assert (runtime.env.health.counts["hook_faults"], runtime.report.abandoned) == (1, 0)
