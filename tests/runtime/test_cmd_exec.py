"""Programs that jobs name: what may be run, what the ends mean, and how a program is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]
import pytest

from forge_jobs import ConfigError, JobId, QueueRuntime
from forge_jobs.handlers import CmdExec, NoopEcho
from forge_jobs.runtime.children.tail import Tail
from forge_jobs.storage.types.job import JobDetail
from forge_jobs.testing.cluster import until

from .test_children import alive
from .world import World, scaled

PATIENT = scaled(cancel_grace_s=10, shutdown_grace_s=10)


async def run(world: World, payload: Any, kind: str = "cmd_exec") -> JobDetail:
    """What became of one job without a second attempt."""
    return await world.when(await world.put(kind, payload, max_attempts=1), "done", "dead", within_s=15)


async def shell(world: World, script: str, **fields: Any) -> JobDetail:
    return await run(world, {"argv": ["/bin/sh", "-c", script], **fields})


@pytest.fixture
def anything(world: World) -> World:
    world.handlers.register(CmdExec(allow_any=True))
    return world


# What the ends mean


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 0", None),
        ("echo out; exit 3", "exit 3: out"),
        ("echo out; echo ' err ' >&2; exit 3", "exit 3: err"),
        ("exit 3", "exit 3"),
        ("kill -9 $$", "killed by signal 9"),
        ("yes é | head -c 999 >&2; exit 1", "exit 1: …\n" + "é\n" * 85),
    ],
)
async def test_how_a_program_ends_is_the_outcome(anything: World, script: str, message: str | None) -> None:
    await anything.work()
    detail = await shell(anything, script)
    assert (detail.row.status, detail.row.last_error) == (
        "done" if message is None else "dead",
        message and message.rstrip(),
    )
    assert detail.row.dead_reason == (None if message is None else "exhausted")


async def test_a_program_that_cannot_be_started_fails(anything: World) -> None:
    await anything.work()
    detail = await run(anything, {"argv": ["/no/such/program"]})
    assert (detail.row.last_error, detail.row.dead_reason) == (
        "spawn '/no/such/program': No such file or directory",
        "exhausted",
    )
    detail = await run(anything, {"argv": ["true"], "cwd": "/no/such/place"})
    assert detail.row.last_error == "spawn 'true' in '/no/such/place': No such file or directory"


def test_the_end_of_a_stream_is_cut_at_a_character() -> None:
    tail = Tail()
    tail.feed("é".encode() * 200)
    assert tail.text(255) == "…" + "é" * 127
    assert tail.text(400) == "é" * 200
    for _ in range(1000):
        tail.feed(b"x" * 1000)
    assert len(tail._kept) <= 128 * 1024
    assert tail.text(5) == "…xxxxx"
    assert tail.total_bytes == 1_000_400
    broken = Tail()
    broken.feed(b"\xff\xfe")
    assert broken.text(10) == "\ufffd\ufffd"


# What goes in and out


async def test_ten_megabytes_go_through_a_program(anything: World, tmp_path: Path) -> None:
    """Ten times the limit of a payload comes out of a program while its input is still on the way."""
    await anything.work()
    script = f"cat > {tmp_path}/in; for i in 1 2 3 4 5 6 7 8 9 10 11; do cat {tmp_path}/in; done"
    detail = await shell(anything, f"tee {tmp_path}/copy | tee /dev/stderr", stdin="é\n" * 120_000)
    assert detail.row.status == "done"
    assert (tmp_path / "copy").read_text() == "é\n" * 120_000
    detail = await shell(anything, script, stdin="x" * 1_000_000)
    assert detail.row.status == "done"


async def test_input_is_null_unless_it_is_given_and_nobody_must_read_it(anything: World) -> None:
    await anything.work()
    assert (await shell(anything, 'test -z "$(cat)"')).row.status == "done"
    assert (await shell(anything, "exec <&-; exit 0", stdin="x" * 1_000_000)).row.status == "done"


async def test_a_flood_of_output_takes_bounded_memory(anything: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await anything.work()
    me = psutil.Process()
    before = me.memory_info().rss
    job_id = await anything.put("cmd_exec", {"argv": ["head", "-c", str(256 * 2**20), "/dev/zero"]})
    most = 0
    while (await anything.row(job_id)).status != "done":
        most = max(most, me.memory_info().rss - before)
        await asyncio.sleep(0.02)
    assert most < 20 * 2**20
    assert f"stdout_bytes={256 * 2**20}" in caplog.text
    assert len(caplog.text) < 20_000


async def test_a_daemon_that_keeps_the_pipes_does_not_keep_the_slot(anything: World, tmp_path: Path) -> None:
    await anything.work()
    pid = tmp_path / "pid"
    began = time.monotonic()
    detail = await shell(anything, f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & while [ ! -s {pid} ]; do :; done")
    assert detail.row.status == "done"
    assert time.monotonic() - began < 5
    os.kill(int(pid.read_text()), signal.SIGKILL)


# What is allowed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "CmdExec needs either programs="),
        ({"programs": {}}, "CmdExec needs either programs="),
        ({"programs": {"ls": "/bin/ls"}, "allow_any": True}, "CmdExec needs either programs="),
        ({"programs": {"ls": "bin/ls"}}, "program 'ls' has the path 'bin/ls', which is not absolute"),
        ({"allow_any": True, "cwd_root": "/no/such/place"}, "cwd_root '/no/such/place' is not a directory"),
    ],
)
def test_what_may_be_run_must_be_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        CmdExec(**options)


REFUSED: Final[list[tuple[Any, str]]] = [
    (None, "payload: Expected `object`, got `null`"),
    ([], "payload: Expected `object`, got `array`"),
    ({}, "payload: Object missing required field `argv`"),
    ({"argv": []}, "payload: Expected `array` of length >= 1 - at `$.argv`"),
    ({"argv": "ls -l"}, "payload: Expected `array`, got `str` - at `$.argv`"),
    ({"argv": ["echo", 1]}, "payload: Expected `str`, got `int` - at `$.argv[1]`"),
    ({"argv": ["echo"], "timeout_secs": 0.5}, "payload: Expected `float` >= 1.0 - at `$.timeout_secs`"),
    ({"argv": ["echo"], "timeout_secs": True}, "payload: Expected `float`, got `bool` - at `$.timeout_secs`"),
    ({"argv": ["echo"], "timeout": 5}, "payload: Object contains unknown field `timeout`"),
    ({"argv": ["echo"], "env": {"A": 1}}, "payload: Expected `str`, got `int` - at `$.env[...]`"),
    ({"argv": ["echo"], "env": {"A=B": "1"}}, "payload: env has 'A=B', which is no name of a variable"),
    ({"argv": ["echo", "a\0"]}, "payload: 'a\\x00' holds a NUL character"),
    ({"argv": ["rm"]}, "payload: argv[0] 'rm' is none of the programs of this worker: echo"),
    ({"argv": ["/bin/echo"]}, "payload: argv[0] '/bin/echo' is none of the programs of this worker: echo"),
    ({"argv": ["echo"], "env": {"LD_PRELOAD": "x"}}, "payload: env 'LD_PRELOAD' is allowed only if"),
    ({"argv": ["echo"], "env": {"PYTHONSTARTUP": "x"}}, "payload: env 'PYTHONSTARTUP' is allowed only if"),
    ({"argv": ["echo"], "env": {"PATH": "/tmp"}}, "payload: env 'PATH' is allowed only if"),
    ({"argv": ["echo"], "cwd": ".."}, "cwd rejected: '..' is outside of "),
    ({"argv": ["echo"], "cwd": "/etc"}, "cwd rejected: '/etc' is outside of "),
    ({"argv": ["echo"], "cwd": "link"}, "cwd rejected: 'link' is outside of "),
    ({"argv": ["echo"], "cwd": "circle"}, "cwd rejected: 'circle' "),
]


async def test_a_payload_that_is_not_allowed_is_dead(world: World, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "root" / "circle").symlink_to(tmp_path / "root" / "circle")
    world.handlers.register(CmdExec(programs={"echo": "/bin/echo"}, cwd_root=tmp_path / "root"))
    await world.work()
    for payload, message in REFUSED:
        detail = await run(world, payload)
        assert detail.row.dead_reason == "rejected", payload
        assert (detail.row.last_error or "").startswith(message), payload


async def test_a_program_runs_by_its_name_in_its_directory_with_its_environment(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s")
    monkeypatch.setenv("REGION", "eu")
    (tmp_path / "inside").mkdir()
    script = tmp_path / "tell"
    script.write_text('#!/bin/sh\npwd > "$1"\nenv | cut -d= -f1 | sort >> "$1"\n')
    script.chmod(0o755)
    world.handlers.register(CmdExec({"tell": script}, cwd_root=tmp_path, inherit=["REGION", "LD_LIBRARY_PATH"]))
    await world.work()
    env = {"OWN": "1", "LD_LIBRARY_PATH": "/nowhere"}
    detail = await run(world, {"argv": ["tell", f"{tmp_path}/told"], "cwd": "inside", "env": env})
    assert detail.row.status == "done"
    told = (tmp_path / "told").read_text().split()
    assert told[0] == str(tmp_path / "inside")
    assert {"REGION", "OWN", "LD_LIBRARY_PATH", "PATH"} <= set(told)
    assert "SECRET" not in told
    detail = await run(world, {"argv": ["tell", f"{tmp_path}/told"]})
    assert (tmp_path / "told").read_text().split()[0] == str(tmp_path)


# How it is stopped

STUBBORN = (
    "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 1; done' & while :; do sleep 1; done"
)


async def at_work(world: World, tmp_path: Path, script: str, **fields: Any) -> tuple[QueueRuntime, JobId, int]:
    """A runtime, its job, and a process that the job's program started."""
    world.handlers.register(CmdExec(allow_any=True, cwd_root=tmp_path))
    runtime = await world.work(config=PATIENT)
    job_id = await world.put("cmd_exec", {"argv": ["sh", "-c", script], **fields}, max_attempts=2)
    found = tmp_path / "child"
    await until(lambda: found.exists() and found.read_text(), what="the program is at work")
    return runtime, job_id, int(found.read_text())


@pytest.mark.parametrize("script", ["sleep 60 & echo $! > child; wait", STUBBORN], ids=["kind", "stubborn"])
async def test_a_cancel_ends_the_whole_group(world: World, tmp_path: Path, script: str) -> None:
    _, job_id, grandchild = await at_work(world, tmp_path, script)
    await world.storage.jobs.cancel(job_id)
    detail = await world.when(job_id, "dead", within_s=4)
    assert detail.row.dead_reason == "cancelled"
    assert not alive(grandchild), "the job is not over before its processes are"


async def test_a_program_that_takes_too_long_is_ended(world: World, tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > child; wait"
    _, job_id, grandchild = await at_work(world, tmp_path, script, timeout_secs=1)
    detail = await world.when(job_id, "failed")
    assert [(entry.kind_of_error, entry.message) for entry in detail.history] == [("timeout", "timeout after 1 s")]
    assert not alive(grandchild)


async def test_a_shutdown_ends_a_program_and_gives_its_job_back(world: World, tmp_path: Path) -> None:
    script = "trap 'exit 0' TERM; sleep 60 & echo $! > child; wait"  # exit 0 after the signal is not done
    runtime, job_id, grandchild = await at_work(world, tmp_path, script)
    began = time.monotonic()
    await runtime.stop()
    assert time.monotonic() - began < 5
    row = await world.row(job_id)
    assert (row.status, row.attempts, row.crashes) == ("pending", 0, 0)
    assert not alive(grandchild)


# The handler for trying things out


@pytest.mark.parametrize(
    ("payload", "status", "message"),
    [
        ({"sleep_ms": 0}, "done", None),
        (None, "done", None),
        ({"sleep_ms": 1, "unknown": 1}, "done", None),
        ({"sleep_ms": 0, "fail": True, "throttle_ms": 5}, "dead", "demo-fail"),
        ({"sleep_ms": -1}, "dead", "payload: Expected `float` >= 0.0 - at `$.sleep_ms`"),
        ({"sleep_ms": 600_001}, "dead", "payload: Expected `float` <= 600000.0 - at `$.sleep_ms`"),
        ({"sleep_ms": "5"}, "dead", "payload: Expected `float`, got `str` - at `$.sleep_ms`"),
    ],
)
async def test_noop_echo_does_as_its_payload_says(world: World, payload: Any, status: str, message: str | None) -> None:
    world.handlers.register(NoopEcho())
    await world.work()
    detail = await run(world, payload, "noop_echo")
    assert (detail.row.status, detail.row.last_error) == (status, message)


async def test_noop_echo_is_throttled_and_listens_to_a_cancel(world: World) -> None:
    world.handlers.register(NoopEcho())
    await world.work(2)
    throttled = await world.put("noop_echo", {"sleep_ms": 0, "throttle_ms": 60_000})
    await world.when(throttled, "pending", and_also=lambda row: row.throttles == 1 and row.attempts == 0)
    sleeping = await world.put("noop_echo", {"sleep_ms": 600_000}, queue="default")
    await world.storage.jobs.cancel(throttled)
    await world.storage.queues.resume("default")
    await world.storage.jobs.cancel(sleeping)
    detail = await world.when(sleeping, "dead")
    assert detail.row.dead_reason == "cancelled"
