"""Handlers in child processes: what they can use, what they cannot harm, and how they end."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import HandlerRegistry, JobCtx, QueueRuntime, StoreConfig, open_storage
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from . import child_handlers
from .world import World, scaled


async def work(world: World, slots: int = 1, **config: Any) -> QueueRuntime:
    world.handlers = child_handlers.handlers
    return await world.work(slots, config=scaled(**config), registry=child_handlers.PATH)


async def said(world: World, kind: str, payload: Any = None) -> str:
    """What the handler said it saw."""
    detail = await world.when(await world.put(kind, payload or {}), "dead", within_s=15)
    return detail.row.last_error or ""


async def test_a_child_is_kept_for_the_next_job_in_a_group_of_its_own(world: World) -> None:
    await work(world)
    first, second = await said(world, "pid"), await said(world, "pid")
    assert first == second
    pid, _, group = first.split()
    assert pid == group
    assert pid != str(os.getpid())


async def test_what_a_handler_prints_is_no_message_and_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forge_jobs.job")
    await work(world)
    await world.when(await world.put("talk"), "done", within_s=15)
    await until(lambda: "hello" in caplog.text, what="logged")


async def test_a_child_has_a_small_environment_and_what_it_is_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("APP_SETTINGS", "test")
    await work(world, child_env=["APP_SETTINGS"])
    names = set((await said(world, "environment")).split())
    assert "APP_SETTINGS" in names
    assert names <= {"APP_SETTINGS", "PATH", "HOME", "LANG", "TZ"}


async def test_programs_that_a_handler_starts_do_not_get_the_pipes(world: World) -> None:
    await work(world)
    assert await said(world, "descriptors") == "0 1 2 3"  # 3 is the directory that it lists


async def test_ctx_in_a_child_refuses_what_needs_the_store(world: World) -> None:
    await work(world)
    assert await said(world, "no_store") == "ctx.storage ctx.router ctx.transaction()"


async def test_ctx_rate_limit_works_in_a_child(world: World) -> None:
    await world.storage.rate_limits.ensure(_pot())
    await work(world)
    assert await said(world, "budget") == "Granted Refused True"


def _pot() -> Any:
    handlers = HandlerRegistry()
    handlers.limit("pot", capacity=3, refill_per_s=0)
    return handlers.limits()[0]


async def test_follow_ups_that_do_not_fit_into_a_frame_are_refused(world: World) -> None:
    await work(world)
    assert "are more than the 2097152" in await said(world, "big_follow_up")


async def test_a_payload_that_does_not_fit_into_a_frame_fails_its_job(tmp_path: Path) -> None:
    config = StoreConfig(payload_max=8 * 2**20)
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db", config=config) as storage:
        world = World(storage, None)
        await work(world)
        detail = await world.when(await world.put("pid", "x" * 3_000_000), "failed")
        assert "does not fit into a child process" in (detail.row.last_error or "")
        assert await said(world, "pid")
        await world.close()


async def test_a_process_that_a_handler_forks_says_nothing_in_its_name(world: World) -> None:
    await work(world)
    await world.when(await world.put("fork"), "done", within_s=15)


# Death


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"code": 3}, "exit 3: last words"),
        ({"code": 0}, "exit 0: last words"),
        ({"signal": int(signal.SIGKILL)}, "killed by signal 9 (SIGKILL)"),
        ({"signal": int(signal.SIGSEGV)}, "killed by signal 11 (SIGSEGV)"),
    ],
)
async def test_the_death_of_a_child_is_a_crash_of_its_job_alone(world: World, how: Any, cause: str) -> None:
    await work(world, slots=3)
    neighbour = await world.put("sleep", {"s": 1.0})
    detail = await world.when(await world.put("die", how, max_attempts=1), "dead", "failed", within_s=15)
    assert (detail.row.dead_reason, detail.row.crashes) == ("exhausted", 1)
    assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [
        ("crash", f"child process died: {cause}")
    ]
    other = await world.when(neighbour, "done", within_s=15)
    assert (other.row.fence, other.row.crashes) == (1, 0)


async def test_a_job_that_kills_every_child_ends_dead(world: World) -> None:
    await world.storage.queues.ensure("default", QueueChange(backoff_enabled=False))
    await work(world, slots=2)
    detail = await world.when(await world.put("die", {"code": 1}, max_attempts=9), "dead", within_s=20)
    assert (detail.row.dead_reason, detail.row.crashes, detail.row.attempts) == ("crashed", 3, 3)
    assert await said(world, "pid")


async def test_a_child_that_died_while_idle_costs_no_job_anything(world: World) -> None:
    await work(world)
    first = (await said(world, "pid")).split()[0]
    os.kill(int(first), signal.SIGKILL)
    job_id = await world.put("pid")
    detail = await world.when(job_id, "dead", within_s=15)
    assert (detail.row.crashes, detail.row.fence) == (0, 1)
    assert (detail.row.last_error or "").split()[0] != first


async def test_a_child_that_breaks_the_protocol_fails_its_job_and_is_replaced(world: World) -> None:
    await work(world)
    first = await said(world, "pid")
    detail = await world.when(await world.put("garble"), "failed", within_s=15)
    assert "sent what cannot be read" in (detail.row.last_error or "")
    assert await said(world, "pid") != first


async def test_sigterm_for_all_processes_of_a_service_does_not_end_a_working_child(world: World) -> None:
    await work(world)
    assert await said(world, "term") == "still here"


async def test_a_timeout_ends_the_whole_group(world: World, tmp_path: Path) -> None:
    mark = f"forge-test-{os.getpid()}"
    await work(world)
    started = tmp_path / "started"
    job_id = await world.put("grandchild", {"file": str(started), "mark": mark})
    await until(started.exists, within_s=15, what="the grandchild at work")
    detail = await world.when(job_id, "failed", within_s=15)
    assert [entry.kind_of_error for entry in detail.history] == ["timeout"]
    await until(lambda: mark not in _command_lines(), within_s=5, what="the grandchild gone")
    assert await said(world, "pid")


def _command_lines() -> str:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            pass
    return "\n".join(found)


async def test_no_child_outlives_its_runtime(world: World) -> None:
    runtime = await work(world, slots=2)
    pid = int((await said(world, "pid")).split()[0])
    await world.put("sleep", {"s": 30})
    await until(lambda: len(runtime.env.running) == 1, what="running")
    await runtime.stop(0)
    await until(lambda: not Path(f"/proc/{pid}").exists(), what="the child gone")


# Limits


async def test_a_child_is_replaced_after_its_share_of_jobs(world: World) -> None:
    await work(world, max_jobs_per_child=2)
    pids = [await said(world, "pid") for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_a_child_that_grew_too_large_is_replaced(world: World) -> None:
    await work(world, max_child_rss_mib=150)
    pids = [await said(world, "grow") for _ in range(4)]
    assert len(set(pids)) > 1


async def test_a_child_gets_the_limits_of_the_system_that_are_asked_for(world: World) -> None:
    await work(world, child_memory_mib=1500, child_open_files=77)
    assert await said(world, "limits") == "77 1500"
    detail = await world.when(await world.put("memory"), "failed", within_s=15)
    assert "MemoryError" in (detail.row.last_error or "")
    assert detail.row.crashes == 0


# What is refused at the start


async def refusal(world: World, registry: str | None, handlers: HandlerRegistry | None = None) -> str:
    world.handlers = handlers or child_handlers.handlers
    with pytest.raises(ConfigError) as caught:
        await world.work(registry=registry)
    return str(caught.value)


async def test_a_runtime_that_does_not_know_the_path_of_its_handlers_does_not_start(world: World) -> None:
    text = await refusal(world, None)
    assert "run in child processes" in text
    assert "registry='app:handlers'" in text


@pytest.mark.parametrize(
    ("registry", "named"),
    [
        ("child_handlers", "not of the form MODULE:REGISTRY"),
        ("no.such.module:handlers", "there is no module 'no.such.module'"),
        ("runtime.child_handlers:nothing", "has no 'nothing'"),
        ("runtime.child_handlers:LONG_S", "is a float, not a HandlerRegistry"),
        ("runtime.table:handlers", "has no handler for kind 'big_follow_up', which runs in child"),
    ],
)
async def test_a_path_that_leads_elsewhere_is_refused(world: World, registry: str, named: str) -> None:
    assert named in await refusal(world, registry)


async def test_handlers_of_other_executors_need_no_path(world: World) -> None:
    @world.handlers.handler("plain")
    def plain(ctx: JobCtx) -> None: ...

    await world.work()
    await world.when(await world.put("plain"), "done")
    assert isinstance(await world.put("later", delay=1), str)


async def test_a_child_reads_typed_payloads_and_makes_resources_of_its_own(world: World) -> None:
    await work(world)
    detail = await world.when(await world.put("typed", {"to": "a"}), "dead")
    assert detail.row.last_error == "Letter(to='a', copies=1) True True"
    detail = await world.when(await world.put("typed.async", {"to": "a", "copies": 2}), "dead")
    assert detail.row.last_error == "Letter(to='a', copies=2) True"
    detail = await world.when(await world.put("typed", {"to": 5}), "failed")
    assert detail.row.last_error == "payload: to: expected `str`, got `int`"
