"""A pool of child processes as the handler of a kind: what it asks, what the answers mean, who gets which child."""

from __future__ import annotations

import json
import shutil
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from forge_jobs import ConfigError, StoreConfig, open_storage
from forge_jobs.handlers import WorkerPool
from forge_jobs.testing.cluster import until

from .world import QUICK, World, scaled

WORKERS = Path(__file__).with_name("workers")
PATIENT = scaled(shutdown_grace_s=10, cancel_grace_s=5)


def rude(*arguments: str, **options: Any) -> WorkerPool:
    return WorkerPool("rude", [sys.executable, "-I", str(WORKERS / "rude.py"), *arguments], **options)


def notes(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


SH = r"""
while read -r line; do
    id=${line#*\"id\":\"}
    printf '{"id":"%s","status":"ok"}\n' "${id%%\"*}"
done
"""
PYTHON = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["id"], "status": "ok"}), flush=True)
"""
NODE = """
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  console.log(JSON.stringify({ id: JSON.parse(line).id, status: "ok" }));
});
"""


@pytest.mark.parametrize(
    "argv", [["sh", "-c", SH], [sys.executable, "-c", PYTHON], ["node", "-e", NODE]], ids=["sh", "python", "node"]
)
async def test_a_worker_in_any_language_runs_jobs(world: World, argv: list[str]) -> None:
    assert shutil.which(argv[0]), f"{argv[0]} is needed; see tests/check-system.sh"
    world.handlers.register(WorkerPool("any", argv, size=2))
    await world.work(4)
    ids = [await world.put("any", {"text": 'a\n"b" \\ é 中 \x00', "n": n}) for n in range(20)]
    for job_id in ids:
        await world.when(job_id, "done", within_s=10)


async def test_a_worker_is_asked_with_everything_that_it_may_need(world: World, tmp_path: Path) -> None:
    payload = {"do": "ok", "note": str(tmp_path / "notes"), "odd": ["é\n\x00", 2**70, 0.1, None, {"": []}]}
    world.handlers.register(rude(timeout=30))
    await world.work()
    job_id = await world.put("rude", payload)
    await world.when(job_id, "done")
    request = json.loads(notes(tmp_path / "notes")[0].partition(" ")[2])
    deadline_ms = request.pop("deadline_ms")
    assert request == {"id": job_id, "payload": payload, "kind": "rude", "attempt": 1, "fence": 1}
    assert 25_000 < deadline_ms <= 30_000


ANSWERS: Final[list[tuple[list[Any], str, str | None]]] = [
    ([{"id": "<id>", "status": "ok"}], "done", None),
    ([{"id": "<id>", "status": "error", "message": "no space"}], "failed", "no space"),
    ([{"id": "<id>", "status": "error"}], "failed", "worker reported error"),
    ([{"id": "<id>", "status": "error", "message": {"code": 7}}], "failed", '{"code":7}'),
    ([{"id": "<id>", "status": "dead", "message": "no such image"}], "dead", "no such image"),
    ([{"id": "<id>", "status": "throttled", "retry_after_secs": -1}], "failed", "invalid retry_after -1"),
    ([{"id": "<id>", "status": "throttled", "retry_after_secs": "soon"}], "failed", "invalid retry_after 'soon'"),
    ([{"id": "<id>", "event": "from the future"}, {"id": "<id>", "status": "ok"}], "done", None),
    ([{"id": "<id>", "event": "progress", "current": "half"}, {"id": "<id>", "status": "ok"}], "done", None),
    ([{"id": "<id>", "status": "ok", "more": 1}], "done", None),
]


async def test_what_an_answer_means(world: World) -> None:
    world.handlers.register(rude())
    await world.work()
    for said, status, message in ANSWERS:
        detail = await world.when(await world.put("rude", {"do": "say", "lines": said}), status)
        assert (detail.row.last_error or "").startswith(message or ""), said
        assert detail.row.crashes == 0


@pytest.mark.parametrize(("given", "wait_s"), [({"retry_after_secs": 300}, 300), ({}, 60)])
async def test_a_throttled_job_waits_as_long_as_the_worker_says(
    world: World, given: dict[str, int], wait_s: int
) -> None:
    world.handlers.register(rude())
    await world.work()
    lines = [{"id": "<id>", "status": "throttled", **given}]
    job_id = await world.put("rude", {"do": "say", "lines": lines})
    detail = await world.when(job_id, "pending", and_also=lambda row: row.throttles == 1)
    assert detail.row.attempts == 0
    due_in = (detail.row.scheduled_at - detail.row.enqueued_at).total_seconds()
    assert wait_s <= due_in <= wait_s * 1.1 + 5


async def test_progress_and_log_lines_reach_the_job(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    lines = [
        {"id": "<id>", "event": "progress", "current": 3, "total": 10, "message": "third"},
        {"id": "<id>", "event": "log", "level": "warning", "message": "careful\x1b[2J"},
        {"id": "<id>", "status": "ok"},
    ]
    world.handlers.register(rude())
    await world.work()
    job_id = await world.put("rude", {"do": "say", "lines": lines})
    await world.when(job_id, "done")
    (record,) = [record for record in caplog.records if record.name == "forge_jobs.job"]
    assert (record.levelname, record.getMessage()) == ("WARNING", "careful\\x1b[2J")
    assert record.__dict__["job_id"] == job_id


# Who gets which child


async def test_children_start_with_the_worker_and_jobs_take_the_one_that_is_idle_longest(
    world: World, tmp_path: Path
) -> None:
    world.handlers.register(rude(size=3))
    runtime = await world.work(1)
    await until(lambda: len(runtime.env.children.running) == 3, what="three children run before any job")
    for n in range(6):
        await world.when(await world.put("rude", {"note": str(tmp_path / "notes"), "n": n}), "done")
    pids = [line.split()[0] for line in notes(tmp_path / "notes")]
    assert len(set(pids)) == 3
    assert pids[:3] == pids[3:]


async def test_a_child_has_one_job_at_a_time_and_others_wait_in_order(world: World, tmp_path: Path) -> None:
    world.handlers.register(rude())
    await world.work(4)
    ids = [await world.put("rude", {"do": "sleep", "seconds": 0.05, "note": str(tmp_path / "notes")}) for _ in range(8)]
    for job_id in ids:
        await world.when(job_id, "done")
    assert [json.loads(line.partition(" ")[2])["id"] for line in notes(tmp_path / "notes")] == ids


async def test_waiting_for_a_child_counts_towards_the_timeout(world: World) -> None:
    world.handlers.register(rude(timeout=1), cancel_grace=5)
    await world.work(2)
    first = await world.put("rude", {"do": "sleep", "seconds": 1.6})
    second = await world.put("rude", max_attempts=1)
    detail = await world.when(second, "dead")
    assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [("timeout", "timeout after 1 s")]
    assert (await world.row(first)).status == "in_progress"
    await world.when(first, "done", "failed")


async def test_a_job_that_waits_for_a_child_can_be_cancelled(world: World) -> None:
    world.handlers.register(rude())
    await world.work(2)
    holder = await world.put("rude", {"do": "sleep", "seconds": 1})
    waiter = await world.put("rude", {"note": "/nonexistent/never written"})
    await world.when(waiter, "in_progress")
    await world.storage.jobs.cancel(waiter)
    detail = await world.when(waiter, "dead", within_s=0.9)
    assert detail.row.dead_reason == "cancelled"
    await world.when(holder, "done")


async def test_a_child_is_replaced_after_its_share_of_jobs(world: World, tmp_path: Path) -> None:
    world.handlers.register(rude(max_jobs_per_child=2))
    await world.work()
    for n in range(6):
        await world.when(await world.put("rude", {"note": str(tmp_path / "notes"), "n": n}), "done")
    pids = [line.split()[0] for line in notes(tmp_path / "notes")]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4] == pids[5]


async def test_a_child_is_replaced_when_it_has_grown(world: World, tmp_path: Path) -> None:
    world.handlers.register(rude(max_rss_mib=60))
    await world.work()
    for mib in (0, 0, 80, 0):
        job_id = await world.put("rude", {"do": "grow", "mib": mib, "note": str(tmp_path / "notes")})
        await world.when(job_id, "done")
    pids = [line.split()[0] for line in notes(tmp_path / "notes")]
    assert pids[0] == pids[1] == pids[2] != pids[3]


async def test_a_pool_that_is_registered_late_starts_with_its_first_job(world: World) -> None:
    await world.work(3)
    world.handlers.register(rude())
    for job_id in [await world.put("rude") for _ in range(3)]:
        await world.when(job_id, "done")


async def test_two_runtimes_of_one_program_have_children_of_their_own(world: World) -> None:
    world.handlers.register(rude())
    one, two = await world.work(1), await world.work(1)
    (first,), (second,) = one.env.children.running, two.env.children.running
    assert first.pid != second.pid
    await one.stop()
    assert second.running
    await world.when(await world.put("rude"), "done")


# How it ends


async def test_a_stopping_worker_lets_its_children_exit_by_themselves(world: World, tmp_path: Path) -> None:
    script = "while read -r line; do :; done; echo bye; echo $? > ended"
    world.handlers.register(WorkerPool("sh", ["sh", "-c", script], cwd=tmp_path, size=2))
    runtime = await world.work()
    children = runtime.env.children.running
    began = time.monotonic()
    await runtime.stop()
    assert time.monotonic() - began < 2
    assert [str(child.exit) for child in children] == ["exit 0"] * 2
    assert notes(tmp_path / "ended") == ["0"]


async def test_a_job_that_ends_within_the_grace_of_a_shutdown_is_done(world: World) -> None:
    world.handlers.register(rude())
    runtime = await world.work(config=PATIENT)
    job_id = await world.put("rude", {"do": "sleep", "seconds": 0.7})
    await world.when(job_id, "in_progress")
    await runtime.stop()
    assert (await world.row(job_id)).status == "done"


async def test_a_shutdown_gives_jobs_back_without_spending_an_attempt(world: World) -> None:
    world.handlers.register(rude(size=2))
    runtime = await world.work(4, config=QUICK)
    ids = [await world.put("rude", {"do": "silence"}) for _ in range(4)]  # two of them wait for a child
    for job_id in ids:
        await world.when(job_id, "in_progress")
    children = runtime.env.children.running
    await runtime.stop()
    for job_id in ids:
        row = await world.row(job_id)
        assert (row.status, row.attempts, row.crashes) == ("pending", 0, 0)
    assert not any(child.running for child in children)
    assert runtime.report.abandoned == 0


# What is refused


@pytest.mark.parametrize(
    ("argv", "options", "message"),
    [
        ([], {}, "argv [] must be a list with at least the program"),
        ("node x.js", {}, "argv 'node x.js' must be a list with at least the program"),
        (["node", 7], {}, "must hold strings only"),
        (["true"], {"size": 0}, "size 0 must be a whole number, 1 … 1000"),
        (["true"], {"size": True}, "size True must be a whole number"),
        (["true"], {"timeout": 0.5}, "timeout 0.5 must be 1 …"),
        (["true"], {"timeout": float("nan")}, "timeout nan must be 1 …"),
        (["true"], {"max_jobs_per_child": 0}, "max_jobs_per_child 0 must be a whole number, 1 or more"),
        (["true"], {"max_rss_mib": -1}, "max_rss_mib -1 must be a whole number, 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(argv: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WorkerPool("resize", argv, **options)
    assert message in str(caught.value)
    assert "resize" in str(caught.value)


async def test_a_worker_whose_pool_cannot_start_does_not_start(world: World) -> None:
    world.handlers.register(WorkerPool("resize", ["no-such-program"]))
    with pytest.raises(ConfigError, match="worker pool 'resize': spawn 'no-such-program': No such file or directory"):
        await world.work()


async def test_jobs_fail_while_no_child_can_be_started(world: World, tmp_path: Path) -> None:
    program = tmp_path / "worker"
    program.write_text(f"#!{sys.executable}\n" + (WORKERS / "rude.py").read_text())
    program.chmod(0o755)
    world.handlers.register(WorkerPool("rude", [str(program)], max_jobs_per_child=2), backoff=[0])
    await world.work()
    await world.when(await world.put("rude"), "done")
    program.rename(tmp_path / "away")
    await world.when(await world.put("rude"), "done")  # by the child that runs already
    detail = await world.when(await world.put("rude", max_attempts=1), "dead")
    assert detail.row.last_error == f"spawn '{program}': No such file or directory"
    (tmp_path / "away").rename(program)
    await world.when(await world.put("rude"), "done", within_s=20)  # a start that is under way may still fail


async def test_a_payload_that_does_not_fit_into_a_line_is_dead_and_costs_no_child(tmp_path: Path) -> None:
    config = StoreConfig(payload_max=4 * 1024 * 1024)
    async with open_storage(f"sqlite:///{tmp_path / 'jobs.db'}", config=config) as storage:
        world = World(storage, tmp_path / "jobs.db")
        world.handlers.register(rude())
        (child,) = (await world.work()).env.children.running
        detail = await world.when(await world.put("rude", {"text": "x" * (2 * 1024 * 1024)}), "dead")
        assert detail.row.last_error == "payload: it does not fit into a line of 2097152 bytes for the worker"
        await world.when(await world.put("rude", {"text": "x" * (2 * 1024 * 1024 - 200)}), "done")
        damaged = await world.put("rude", {"n": 1}, delay=timedelta(seconds=60))
        world.damage(damaged, "payload", '{"n": 1e400}')
        await world.storage.jobs.run_now(damaged)
        assert "payload" in ((await world.when(damaged, "dead", "failed")).row.last_error or "")
        await world.when(await world.put("rude"), "done")
        assert child.running
        await world.close()
