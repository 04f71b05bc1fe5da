"""Child processes: how they start, what they get, how their groups end, and that none outlives its worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import pytest_asyncio

from forge_jobs.runtime.children import Child, ChildError, Children, Exit, environment
from forge_jobs.testing.cluster import until


@pytest_asyncio.fixture
async def children() -> AsyncIterator[Children]:
    made = Children()
    yield made
    await made.close()


async def output(child: Child) -> str:
    """What it writes until it exits."""
    chunks: list[bytes] = []
    child.stdout.listen(chunks.append)
    await child.wait()
    child.stdout.read_rest()
    child.close()
    return b"".join(chunks).decode()


async def says(children: Children, script: str, **options: object) -> str:
    child = await children.start(["sh", "-c", script], env=environment(), **options)  # type: ignore[arg-type]
    return await output(child)


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody waited for yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def guard_of(children: Children) -> psutil.Process:
    """This process has other children too, such as the servers of other tests."""
    assert children._guard is not None
    return psutil.Process(children._guard._process.pid)


def family_of_name(name: str) -> list[int]:
    """Children of this process, and theirs, that run a program of this name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == name:
                found.append(process.pid)
    return found


# What a child gets


async def test_a_child_gets_the_base_variables_and_those_that_are_given(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.delenv("TZ", raising=False)
    env = environment(inherit=["WANTED", "ABSENT"], given={"LANG": "C", "OWN": "1 2"})
    child = await children.start(["/usr/bin/env"], env=env)
    lines = (await output(child)).splitlines()
    assert sorted(lines) == sorted(["HOME=/somewhere", "LANG=C", "OWN=1 2", f"PATH={os.environ['PATH']}", "WANTED=yes"])


async def test_a_child_has_no_descriptors_but_its_own(children: Children) -> None:
    kept = os.open("/", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        listing = "import os; print(*[fd for fd in range(256) if os.path.exists(f'/proc/self/fd/{fd}')])"
        child = await children.start([sys.executable, "-I", "-c", listing], env=environment())
        assert (await output(child)).split() == ["0", "1", "2"]
        child = await children.start([sys.executable, "-I", "-c", listing], env=environment(), private=True)
        assert (await output(child)).split() == ["0", "1", "2", "3", "4"]
    finally:
        os.close(kept)


async def test_a_child_leads_a_session_and_group_of_its_own(children: Children) -> None:
    child = await children.start(["sleep", "60"], env=environment())
    assert os.getpgid(child.pid) == os.getsid(child.pid) == child.pid
    await child.end()
    child.close()


async def test_a_child_starts_with_default_signals(children: Children) -> None:
    """An ignored signal passes through exec: a child that ignores SIGTERM for no reason cannot be ended kindly."""
    then = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        child = await children.start(["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"], env=environment())
        ignored = {line.split()[0]: int(line.split()[1], 16) for line in (await output(child)).splitlines()}
    finally:
        signal.signal(signal.SIGTERM, then)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    assert not ignored["SigBlk:"]
    assert not ignored["SigIgn:"] & (1 << (signal.SIGTERM - 1) | 1 << (signal.SIGPIPE - 1))


async def test_nothing_of_an_argument_is_read_by_a_shell(children: Children, tmp_path: Path) -> None:
    odd = "$(touch pwned); `id` \n ' \" * é\udcff"
    child = await children.start(["printf", "%s", odd], env=environment(), cwd=tmp_path)
    chunks: list[bytes] = []
    child.stdout.listen(chunks.append)
    await child.wait()
    child.stdout.read_rest()
    child.close()
    assert b"".join(chunks) == os.fsencode(odd)
    assert not list(tmp_path.iterdir())


async def test_private_pipes_are_descriptors_3_and_4(children: Children) -> None:
    child = await children.start(["sh", "-c", "cat <&3 >&4"], env=environment(), private=True)
    assert child.inlet is not None
    assert child.outlet is not None
    got = bytearray()
    child.outlet.listen(got.extend)
    child.inlet.write(b"x" * 3_000_000)
    child.inlet.close_when_sent()
    assert await child.wait() == Exit(code=0)
    child.outlet.read_rest()
    child.close()
    assert len(got) == 3_000_000


async def test_limits_are_set_before_the_program_runs(children: Children) -> None:
    assert (await says(children, "ulimit -n", rlimits={"NOFILE": 77})).strip() == "77"


# How a start fails


@pytest.mark.parametrize(
    ("argv", "options", "message"),
    [
        (["no-such-program"], {}, "spawn 'no-such-program': No such file or directory"),
        (["/etc/passwd"], {}, "spawn '/etc/passwd': Permission denied"),
        (["true"], {"cwd": "/nowhere"}, "spawn 'true' in '/nowhere': No such file or directory"),
        (["true", "a\0b"], {}, r"spawn 'true': 'a\x00b' holds a NUL character"),
        (["true"], {"rlimits": {"SPEED": 1}}, "spawn 'true' with limits {'SPEED': 1}: its description is not legal"),
        (["true", "x" * 3_000_000], {}, "spawn 'true': Argument list too long"),
    ],
)
async def test_what_cannot_be_started_is_told_with_the_reason(
    children: Children, argv: list[str], options: dict[str, object], message: str
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ChildError) as caught:
        await children.start(argv, env=environment(), **options)  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the guard's socket
    assert await says(children, "echo on") == "on\n"


async def test_a_script_without_an_interpreter_line_is_not_given_to_a_shell(children: Children, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo from a shell\n")
    script.chmod(0o755)
    with pytest.raises(ChildError, match="Exec format error"):
        await children.start([str(script)], env=environment())


# How children end


async def test_how_a_child_ended_is_told(children: Children) -> None:
    assert [
        str(await (await children.start(["sh", "-c", script], env=environment())).wait())
        for script in ("exit 0", "exit 7", "kill -9 $$", "kill -40 $$")
    ] == ["exit 0", "exit 7", "killed by signal 9 (SIGKILL)", "killed by signal 40"]


async def test_the_end_takes_the_whole_group(children: Children, tmp_path: Path) -> None:
    script = "sleep 60 & echo $! > one; sh -c 'sleep 60 & echo $! > two; wait' & wait"
    child = await children.start(["sh", "-c", script], env=environment(), cwd=tmp_path)
    await until(lambda: (tmp_path / "two").exists() and (tmp_path / "two").read_text(), what="both run")
    pids = [int((tmp_path / name).read_text()) for name in ("one", "two")]
    assert all(map(alive, pids))
    began = time.monotonic()
    await child.end()
    assert time.monotonic() - began < 1.5
    assert child.exit == Exit(signal=15)
    assert not any(map(alive, pids))
    child.close()


async def test_a_group_that_ignores_the_request_is_gone_within_three_seconds(
    children: Children, tmp_path: Path
) -> None:
    script = (
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > one; while :; do sleep 1; done' & while :; do sleep 1; done"
    )
    child = await children.start(["sh", "-c", script], env=environment(), cwd=tmp_path)
    await until(lambda: (tmp_path / "one").exists() and (tmp_path / "one").read_text(), what="it runs")
    began = time.monotonic()
    await child.end()
    took = time.monotonic() - began
    assert 1.9 < took < 3
    assert child.exit == Exit(signal=9)
    assert not alive(int((tmp_path / "one").read_text()))
    child.close()


async def test_a_daemon_that_holds_the_pipes_is_not_waited_for(children: Children, tmp_path: Path) -> None:
    script = "setsid sh -c 'echo $$ > pid; exec sleep 60' & while [ ! -s pid ]; do sleep 0.01; done; echo said"
    child = await children.start(["sh", "-c", script], env=environment(), cwd=tmp_path)
    try:
        async with asyncio.timeout(3):
            assert await output(child) == "said\n"
            await child.end()
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_what_a_child_leaves_in_its_group_is_ended_when_it_exits(children: Children, tmp_path: Path) -> None:
    child = await children.start(["sh", "-c", "sleep 60 & echo $! > pid"], env=environment(), cwd=tmp_path)
    await child.wait()
    left = int((tmp_path / "pid").read_text())
    assert await child.until_gone(3)
    assert not alive(left)
    child.close()


async def test_a_program_that_becomes_a_daemon_is_let_go(children: Children, tmp_path: Path) -> None:
    """It leaves the group after its parent is over."""
    script = "(sleep 0.2; exec setsid sh -c 'echo $$ > pid; exec sleep 60') &"
    child = await children.start(["sh", "-c", script], env=environment(), cwd=tmp_path)
    await child.wait()
    assert await child.until_gone(3)
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), what="it tells its number")
    daemon = int((tmp_path / "pid").read_text())
    assert alive(daemon)
    os.kill(daemon, signal.SIGKILL)
    child.close()


async def test_a_start_that_is_given_up_leaves_no_child(children: Children) -> None:
    await says(children, "true")
    for _ in range(20):
        starting = asyncio.ensure_future(children.start(["sleep", "61"], env=environment()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    await until(lambda: not family_of_name("sleep"), what="no sleep of ours is left")


async def test_closing_ends_the_children_and_the_guard() -> None:
    made = Children()
    running = [await made.start(["sleep", "62"], env=environment()) for _ in range(5)]
    guard = guard_of(made)
    began = time.monotonic()
    await made.close()
    assert time.monotonic() - began < 2
    assert [str(child.exit) for child in running] == ["killed by signal 15 (SIGTERM)"] * 5
    assert not guard.is_running()
    assert not any(alive(child.pid) for child in running)
    with pytest.raises(ChildError, match="shutting down"):
        await made.start(["true"], env=environment())
    for child in running:
        child.close()


# When somebody is killed


async def test_the_kernel_ends_the_children_of_a_killed_guard(children: Children) -> None:
    child = await children.start(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], env=environment())
    guard_of(children).kill()
    async with asyncio.timeout(3):
        assert await child.wait() == Exit(signal=9)
        await until(lambda: not alive(child.pid), what="the child is over")
    child.close()
    assert await says(children, "echo again") == "again\n"  # by a new guard


async def test_a_service_manager_that_stops_everything_does_not_stop_the_guard(children: Children) -> None:
    await says(children, "true")
    guard = guard_of(children)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        guard.send_signal(number)
    assert await says(children, "echo still") == "still\n"
    assert guard.is_running()


WORKER = """
    import asyncio, os, sys
    from forge_jobs.runtime.children import Children, environment

    async def main():
        children = Children()
        stubborn = "trap '' TERM; while :; do sleep 1; done"
        for argv in (["sleep", "63"], ["sh", "-c", stubborn], ["sh", "-c", stubborn + " & sleep 63"]):
            await children.start(argv, env=environment())
        if os.fork() == 0:  # a copy of the socket that the guard watches
            os.closerange(0, 3)
            os.execvp("sleep", ["sleep", "64"]) if len(sys.argv) > 1 else __import__("time").sleep(64)
        print("started", flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
"""


async def test_no_child_outlives_a_killed_worker() -> None:
    worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WORKER)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"started\n"
    family = psutil.Process(worker.pid).children(recursive=True)
    guards = [p for p in family if "guard.py" in " ".join(p.cmdline())]
    own_fork = [p for p in family if p.ppid() == worker.pid and p not in guards]
    theirs = [p for p in family if p not in own_fork]
    assert len(guards) == 1
    assert len(theirs) >= 5
    worker.kill()
    worker.wait()
    try:
        await until(lambda: not any(alive(p.pid) for p in theirs), within_s=4, what="all are gone")
    finally:
        worker.stdout.close()
        for process in own_fork:
            process.kill()
