"""Children that break the rules, die, or do not stop: what becomes of their job, of the next one, and of them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import pytest

from forge_jobs import Done, JobCtx, QueueRuntime
from forge_jobs.ids import new_id
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.running import Run, RunState
from forge_jobs.runtime.worker import Slot
from forge_jobs.storage.types.job import JobDetail, JobRecord
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.cluster import until

from .test_children import alive
from .test_worker_pool import notes, rude
from .world import World, scaled

LOOSE = scaled(cancel_grace_s=0.3)
PATIENT = scaled(cancel_grace_s=20, shutdown_grace_s=20)


def only_child(runtime: QueueRuntime) -> int:
    (child,) = runtime.env.children.running
    return child.pid


async def failed_by(world: World, payload: dict[str, Any], **fields: Any) -> JobDetail:
    """What became of one job without a second attempt."""
    job_id = await world.put("rude", payload, max_attempts=1, **fields)
    return await world.when(job_id, "dead", "done", within_s=10)


async def works_on(world: World, not_by: int, tmp_path: Path) -> int:
    """The next job is done, by another child, and the one before is over; the new one."""
    path = tmp_path / "next"
    await world.when(await world.put("rude", {"note": str(path)}), "done")
    child = int(notes(path)[-1].split()[0])
    assert child != not_by
    await until(lambda: not alive(not_by), what="the bad child is over")
    return child


# Answers that are none

RULES: Final[list[tuple[dict[str, Any], str]]] = [
    ({"do": "raw", "text": "garbage\n"}, "worker wrote a line that is not JSON: 'garbage'"),
    ({"do": "raw", "text": "\n"}, "worker wrote a line that is not JSON: ''"),
    ({"do": "raw", "text": '{"id":"<id>","status":"ok"}{}\n'}, "worker wrote a line that is not JSON"),
    ({"do": "raw", "text": '{"id":"<id>","status":"\xff"}\n'}, "worker wrote a line that is not JSON"),
    ({"do": "raw", "text": "[" * 100_000 + "\n"}, "worker wrote a line that is not JSON"),
    ({"do": "say", "lines": [["<id>", "ok"]]}, "worker wrote a line that is not a JSON object"),
    ({"do": "say", "lines": [7]}, "worker wrote a line that is not a JSON object: '7'"),
    ({"do": "say", "lines": [{"id": "<id>", "status": "fine"}]}, "worker answered with an unknown status"),
    ({"do": "say", "lines": [{"id": "<id>", "status": ["ok"]}]}, "worker answered with an unknown status"),
    ({"do": "say", "lines": [{"id": "<id>"}]}, "worker wrote neither a status nor an event"),
    ({"do": "say", "lines": [{"id": "other", "status": "ok"}]}, "it answered with id 'other', its job is '"),
    ({"do": "say", "lines": [{"id": None, "status": "ok"}]}, "it answered with id None"),
    ({"do": "say", "lines": [{"status": "ok"}]}, "worker out of step: it answered with no id"),
    ({"do": "say", "lines": [{"id": "other", "event": "progress", "current": 1}]}, "worker out of step"),
    ({"do": "long line"}, "worker wrote a line of more than 2097152 bytes"),
]


async def test_a_child_that_breaks_the_rules_fails_its_job_and_is_replaced(world: World, tmp_path: Path) -> None:
    world.handlers.register(rude())
    child = only_child(await world.work())
    for payload, message in RULES:
        detail = await failed_by(world, payload)
        assert message in (detail.row.last_error or ""), payload
        assert (detail.row.dead_reason, detail.row.crashes) == ("exhausted", 0)
        assert [entry.kind_of_error for entry in detail.history] == ["failed"]
        child = await works_on(world, child, tmp_path)


async def test_a_child_without_ids_is_fine_where_that_is_allowed(world: World) -> None:
    world.handlers.register(rude(require_id=False))
    child = only_child(await world.work())
    detail = await failed_by(world, {"do": "say", "lines": [{"status": "ok"}]})
    assert detail.row.status == "done"
    assert alive(child)
    detail = await failed_by(world, {"do": "say", "lines": [{"id": "other", "status": "ok"}]})
    assert "worker out of step" in (detail.row.last_error or "")


@pytest.mark.parametrize("pause", [0, 0.2])
async def test_a_second_answer_ends_the_child_and_harms_no_job(world: World, tmp_path: Path, pause: float) -> None:
    world.handlers.register(rude())
    child = only_child(await world.work())
    await world.when(await world.put("rude", {"do": "twice", "pause": pause}), "done")
    await until(lambda: not alive(child), what="the child is ended")
    await works_on(world, child, tmp_path)


async def test_a_second_answer_that_comes_while_the_next_job_runs_is_no_answer_to_that(
    world: World, tmp_path: Path
) -> None:
    """The old answer must not finish the new job: that fails, and the one after it gets a fresh child."""
    world.handlers.register(rude())
    child = only_child(await world.work(2))
    first = await world.put("rude", {"do": "twice", "pause": 0.3}, priority=-1)
    second = await world.put("rude", max_attempts=1)
    await world.when(first, "done")
    detail = await world.when(second, "dead")
    assert f"it answered with id '{first}', its job is '{second}'" in (detail.row.last_error or "")
    await works_on(world, child, tmp_path)


async def test_a_banner_ends_the_child_and_the_next_is_started_ever_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    world.handlers.register(rude("--banner"))
    runtime = await world.work()

    def ended() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "child_ended" in record.getMessage()]

    await until(lambda: len(ended()) >= 3, what="three children were ended")
    assert "it wrote while it had no job: b'hello, I am a worker\\n'" in ended()[0].getMessage()
    gaps = [later.created - earlier.created for earlier, later in pairwise(ended())]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert runtime.env.health.fatal is None


# Deaths


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        ({"do": "exit", "code": 7}, "worker process died: exit 7: my last words"),
        ({"do": "exit", "code": 0}, "worker process died: exit 0: my last words"),
        ({"do": "kill", "signal": 9}, "worker process died: killed by signal 9 (SIGKILL)"),
        ({"do": "kill", "signal": 15}, "worker process died: killed by signal 15 (SIGTERM)"),
        ({"do": "leave a child"}, "worker process died: exit 4"),
        ({"do": "close output"}, "worker process died: killed by signal 15 (SIGTERM)"),
    ],
)
async def test_a_death_with_a_job_is_a_crash_of_that_job(
    world: World, tmp_path: Path, payload: dict[str, Any], cause: str
) -> None:
    world.handlers.register(rude())
    child = only_child(await world.work())
    job_id = await world.put("rude", payload, max_attempts=5)
    detail = await world.when(job_id, "failed", "dead", "in_progress", and_also=lambda row: row.crashes == 1)
    await world.storage.jobs.cancel(job_id)
    assert detail.row.attempts in (1, 2)
    assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [("crash", cause)]
    await world.when(job_id, "dead", within_s=10)
    await works_on(world, child, tmp_path)


async def test_a_job_that_keeps_killing_its_child_ends_dead(world: World) -> None:
    world.handlers.register(rude())
    await world.work()
    await world.storage.queues.change("default", QueueChange(backoff_enabled=False))
    job_id = await world.put("rude", {"do": "kill", "signal": 11}, max_attempts=10)
    detail = await world.when(job_id, "dead", within_s=30)
    assert (detail.row.dead_reason, detail.row.crashes, detail.row.attempts) == ("crashed", 3, 3)
    assert {entry.message for entry in detail.history} == {"worker process died: killed by signal 11 (SIGSEGV)"}


async def test_a_child_that_dies_while_idle_costs_no_attempt(world: World) -> None:
    world.handlers.register(rude(size=2))
    runtime = await world.work(4)
    for round_ in range(3):
        for child in runtime.env.children.running:
            os.kill(child.pid, signal.SIGKILL)
            while alive(child.pid):
                time.sleep(0.001)  # the worker sees nothing of it meanwhile
        ids = [await world.put("rude", {"round": round_, "n": n}) for n in range(4)]
        for job_id in ids:
            detail = await world.when(job_id, "done")
            assert (detail.row.attempts, detail.row.crashes, detail.history) == (1, 0, ())


async def test_an_answer_counts_though_the_child_exits_right_after_it(world: World) -> None:
    world.handlers.register(rude(), backoff=[0])
    await world.work()
    for _ in range(10):
        detail = await failed_by(world, {"do": "answer and exit"})
        assert (detail.row.status, detail.row.crashes) == ("done", 0)


async def test_a_child_that_dies_at_once_is_started_ever_later(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world.handlers.register(rude("--dies-at-once"))
    await world.work()
    await asyncio.sleep(1.2)
    deaths = [r.getMessage() for r in caplog.records if "child_died" in r.getMessage()]
    assert 2 <= len(deaths) <= 4  # after 0.1, 0.2, 0.4 s, and the start of an interpreter each
    assert "cause=exit 9" in deaths[0]


async def test_the_job_of_a_killed_guard_is_a_crash_and_the_pool_goes_on(world: World) -> None:
    world.handlers.register(rude())
    await world.work()
    job_id = await world.put("rude", {"do": "silence"})
    await world.when(job_id, "in_progress")
    await asyncio.sleep(0.2)
    for process in psutil.Process().children():
        if "guard.py" in " ".join(process.cmdline()):
            process.kill()
    await world.when(job_id, "failed", "in_progress", and_also=lambda row: row.crashes == 1)
    await world.storage.jobs.cancel(job_id)
    await world.when(await world.put("rude", priority=-5), "done", within_s=10)


# Being told to stop


async def test_a_worker_is_told_of_a_cancel_and_may_still_be_done(world: World, tmp_path: Path) -> None:
    world.handlers.register(rude())
    child = only_child(await world.work(config=PATIENT))
    payload = {"do": "listen", "heard": str(tmp_path / "heard"), "answer": {"status": "ok"}}
    job_id = await world.put("rude", payload)
    await world.when(job_id, "in_progress")
    await world.storage.jobs.cancel(job_id)
    await world.when(job_id, "done")
    assert json.loads(notes(tmp_path / "heard")[0]) == {"id": job_id, "event": "cancel", "reason": "user"}
    await works_on(world, child, tmp_path)  # one that was told to stop is not used again


@pytest.mark.parametrize("answer", [{"status": "error", "message": "stopped"}, {"status": "dead", "message": "x"}])
async def test_a_cancelled_job_whose_worker_stops_is_dead(world: World, tmp_path: Path, answer: dict[str, Any]) -> None:
    world.handlers.register(rude())
    await world.work(config=PATIENT)
    job_id = await world.put("rude", {"do": "listen", "heard": str(tmp_path / "heard"), "answer": answer})
    await world.when(job_id, "in_progress")
    await world.storage.jobs.cancel(job_id)
    detail = await world.when(job_id, "dead")
    assert (detail.row.dead_reason, detail.row.crashes) == ("cancelled", 0)


@pytest.mark.parametrize("do", ["silence", "deaf"])
async def test_a_worker_that_ignores_a_cancel_is_ended(world: World, tmp_path: Path, do: str) -> None:
    world.handlers.register(rude())
    runtime = await world.work(config=LOOSE)
    child = only_child(runtime)
    job_id = await world.put("rude", {"do": do, "note": str(tmp_path / "notes")})
    await until(lambda: notes(tmp_path / "notes"), what="it runs")
    await world.storage.jobs.cancel(job_id)
    detail = await world.when(job_id, "dead", within_s=2)
    assert (detail.row.dead_reason, detail.row.crashes) == ("cancelled", 0)
    assert runtime.report.abandoned == 0
    await until(lambda: not alive(child), within_s=3.5, what="the child is over, SIGTERM or not")
    await works_on(world, child, tmp_path)


async def test_a_worker_that_takes_too_long_is_told_then_ended(world: World, tmp_path: Path) -> None:
    world.handlers.register(rude(timeout=1))
    child = only_child(await world.work(config=LOOSE))
    payload = {"do": "listen", "heard": str(tmp_path / "heard"), "answer": None, "note": str(tmp_path / "notes")}
    detail = await failed_by(world, payload)
    assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [("timeout", "timeout after 1 s")]
    assert json.loads(notes(tmp_path / "heard")[0])["reason"] == "timeout"
    await works_on(world, child, tmp_path)
    detail = await failed_by(world, {"do": "silence"})
    assert [entry.kind_of_error for entry in detail.history] == ["timeout"]


@pytest.mark.parametrize("reason", [CancelReason.PAUSE, CancelReason.LOST_OWNERSHIP])
async def test_a_worker_that_ignores_an_interrupt_is_ended_and_its_job_given_back(
    world: World, tmp_path: Path, reason: CancelReason
) -> None:
    world.handlers.register(rude())
    runtime = await world.work(config=LOOSE)
    child = only_child(runtime)
    job_id = await world.put("rude", {"do": "silence", "note": str(tmp_path / "notes")})
    await until(lambda: notes(tmp_path / "notes"), what="it runs")
    runtime.env.running.interrupt(reason)
    await world.when(job_id, "pending", "in_progress", and_also=lambda row: row.fence == 2 or row.status == "pending")
    await until(lambda: not alive(child), what="the child is over")
    row = await world.row(job_id)
    assert (row.attempts, row.crashes) in ((0, 0), (1, 0))


async def test_a_child_that_is_stopped_together_with_its_worker_costs_no_attempt(world: World) -> None:
    """A service manager sends SIGTERM to all processes of a service; the child's death may be seen first."""
    world.handlers.register(rude())
    runtime = await world.work(config=PATIENT)
    job_id = await world.put("rude", {"do": "silence"})
    await world.when(job_id, "in_progress")
    os.kill(only_child(runtime), signal.SIGTERM)
    await until(lambda: not runtime.env.children.running, what="the child is over")
    await runtime.stop()
    row = await world.row(job_id)
    assert (row.status, row.attempts, row.crashes) == ("pending", 0, 0)


@pytest.mark.parametrize("by_the_runtime", [True, False])
async def test_an_answer_in_the_moment_of_the_end_counts_and_costs_no_child(world: World, by_the_runtime: bool) -> None:
    pool = rude()
    world.handlers.register(pool)
    runtime = await world.work()
    (child,) = runtime.env.children.running
    handler = runtime.env.handlers.get("rude")
    assert handler is not None
    slot = Slot(runtime.env, runtime.env.exchanger.lines["default"], 0)
    now_us = runtime.env.clock.now_us()

    def one() -> Run:
        job = JobRecord(new_id(), "default", "rude", "{}", 1, 5, 0, 0, 1, 0, now_us, now_us, now_us, None, None, None)
        return Run(runtime.env, slot, job, handler, alone=False)

    run = one()
    run.task = asyncio.create_task(pool.run(JobCtx(run), {}))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    while not child.stdout.read_once():  # the answer is read, and the job's task not yet woken
        time.sleep(0.001)
    if by_the_runtime:
        run.end(CancelReason.SHUTDOWN)
        assert await run.task == Done()  # type: ignore[func-returns-value]
    else:
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task
    run.state = RunState.ENDED
    assert await pool.run(JobCtx(one()), {}) == Done()
    assert child.running


# Floods


@pytest.mark.parametrize(
    "payload",
    [
        {"do": "flood", "on": "stderr", "mib": 64},
        {"do": "flood", "on": "stderr", "mib": 64, "one_line": True},
        {"do": "flood", "on": "stdout", "mib": 64},
    ],
    ids=["lines on stderr", "long lines on stderr", "progress"],
)
async def test_a_flood_of_output_takes_bounded_memory_and_a_bounded_log(
    world: World, caplog: pytest.LogCaptureFixture, payload: dict[str, Any]
) -> None:
    await flood(world, caplog, payload)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("on", ["stderr", "stdout"])
async def test_a_gigabyte_of_output_takes_bounded_memory(
    world: World, caplog: pytest.LogCaptureFixture, on: str
) -> None:
    await flood(world, caplog, {"do": "flood", "on": on, "mib": 1024})


async def flood(world: World, caplog: pytest.LogCaptureFixture, payload: dict[str, Any]) -> None:
    caplog.set_level(logging.INFO)
    world.handlers.register(rude())
    await world.work()
    me = psutil.Process()
    before = me.memory_info().rss
    job_id = await world.put("rude", payload)
    most, longest_s = 0.0, 0.0
    while (await world.row(job_id)).status not in ("done", "dead", "failed"):
        most = max(most, me.memory_info().rss - before)
        began = time.monotonic()
        await asyncio.sleep(0.02)
        longest_s = max(longest_s, time.monotonic() - began)
    assert (await world.row(job_id)).status == "done"
    assert most < 40 * 2**20
    seconds = 2 + (await world.row(job_id)).attempts * 60 * payload["mib"] / 1024
    lines = [record for record in caplog.records if record.name in ("forge_jobs.job", "forge_jobs.worker_pool")]
    assert len(lines) < 201 * seconds
    assert max((len(record.getMessage()) for record in lines), default=0) <= 8 * 1024 + 100
    assert longest_s < 1, "the event loop goes on"
