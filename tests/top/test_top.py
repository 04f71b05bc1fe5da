"""The live view, driven by Textual's pilot, on a real store with a real worker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from forge_jobs import EnqueueRequest, HandlerRegistry, QueueRuntime, RuntimeConfig, open_storage
from forge_jobs.ids import JobId
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.finalize import Dead, ErrorText
from forge_jobs.testing.cluster import until
from forge_jobs.testing.conformance.arrange import take_one
from forge_jobs.top.app import Top

QUICK = RuntimeConfig(heartbeat_s=0.1, stale_s=1.0, reaper_s=0.2, supervisor_s=0.05, poll_ms=20, shutdown_grace_s=0.3)
ANA = Actor(name="ana", surface="cli")


@pytest_asyncio.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as opened:
        yield opened


@pytest_asyncio.fixture
async def at_work(storage: Storage) -> AsyncIterator[Storage]:
    """Two queues and a worker with a long job; a dead job, and one that nobody serves."""
    handlers = HandlerRegistry()

    @handlers.handler("long")
    async def long(payload: object) -> None:
        await asyncio.sleep(60)

    dead = await put(storage, "send", queue="mail")
    job = await take_one(storage, queue="mail", kinds=("send",))
    assert job.id == dead
    await storage.jobs.finalize(job.id, job.fence, Dead(ErrorText("[bold]mailbox[/] \x1b[2Junknown")))
    await put(storage, "send", queue="mail")
    runtime = QueueRuntime(storage, handlers, queues=["work"], slots=1, name="w1", config=QUICK)
    await put(storage, "long", queue="work")
    await runtime.start()
    await until(lambda: len(runtime.env.running) == 1)
    await runtime.env.heartbeat.beat_now()
    yield storage
    await runtime.stop(0)


async def put(storage: Storage, kind: str, *, queue: str) -> JobId:
    return (await storage.jobs.enqueue(EnqueueRequest(kind, {}, queue=queue))).id


def view(storage: Storage) -> Top:
    """The view; it looks anew only when told."""
    return Top(storage, actor=ANA, stale_after=timedelta(seconds=30), every_s=3_600)


def cells(pilot: Pilot[None], name: str) -> list[list[str]]:
    table = pilot.app.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def column(pilot: Pilot[None], name: str, number: int = 0) -> list[str]:
    return [row[number] for row in cells(pilot, name)]


def news(pilot: Pilot[None]) -> str:
    return str(pilot.app.query_one("#news", Static).render())


async def press(pilot: Pilot[None], *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


async def test_queues_workers_and_jobs_are_shown(at_work: Storage) -> None:
    async with view(at_work).run_test(size=(150, 40)) as pilot:
        mail, work = cells(pilot, "queues")
        assert mail[:3] == ["mail", "unserved", "1"]
        assert work[:2] == ["work", "open"]
        assert work[6:8] == ["1", "1"]
        ((label, state, *_),) = cells(pilot, "workers")
        assert (label, state) == ("w1", "running")
        running, dead = cells(pilot, "jobs")
        assert (running[1], running[3], running[6]) == ("in_progress", "long", "w1")
        assert (dead[1], dead[3]) == ("dead", "send")
        assert "workers 1 · running 1 · ready 1" in news(pilot)


async def test_what_jobs_say_is_neither_markup_nor_control(at_work: Storage) -> None:
    async with view(at_work).run_test(size=(150, 40)) as pilot:
        said = cells(pilot, "jobs")[1][6]
        assert said.startswith("[bold]mailbox[/] ")
        assert "\x1b" not in said


async def test_p_pauses_the_selected_queue_and_resumes_it(at_work: Storage) -> None:
    async with view(at_work).run_test(size=(150, 40)) as pilot:
        await press(pilot, "down", "p")
        assert column(pilot, "queues", 1) == ["unserved", "paused"]
        settings = await at_work.queues.get("work")
        assert settings is not None
        assert (settings.paused, settings.pause_signal, settings.paused_by) == (True, False, "ana")
        await press(pilot, "p")
        assert column(pilot, "queues", 1) == ["unserved", "open"]
        assert (await at_work.audit.list())[0].actor.name == "ana"


async def test_r_retries_the_selected_dead_job_and_refuses_a_running_one(at_work: Storage) -> None:
    async with view(at_work).run_test(size=(150, 40)) as pilot:
        running, dead = column(pilot, "jobs")
        pilot.app.query_one("#jobs").focus()
        await press(pilot, "r")
        assert [note.severity for note in pilot.app._notifications] == ["warning"]
        await press(pilot, "down", "r")
        detail = await at_work.jobs.get(JobId(dead))
        assert detail is not None
        assert detail.row.status == "pending"
        assert column(pilot, "jobs") == [running]


async def test_s_sorts_the_table_that_has_the_focus(at_work: Storage) -> None:
    for _ in range(3):
        await put(at_work, "long", queue="work")
    async with view(at_work).run_test(size=(150, 40)) as pilot:
        assert column(pilot, "queues") == ["mail", "work"]
        await press(pilot, "s")
        assert column(pilot, "queues") == ["work", "mail"]
        assert str(pilot.app.query_one("#queues-title", Static).render()) == "queues, by ready"
        await press(pilot, "tab", "tab", "s")
        assert str(pilot.app.query_one("#jobs-title", Static).render()) == "jobs, by queue"


async def test_a_filter_hides_what_does_not_match(at_work: Storage) -> None:
    async with view(at_work).run_test(size=(150, 40)) as pilot:
        await press(pilot, "slash", *"mail")
        assert column(pilot, "queues") == ["mail"]
        assert column(pilot, "workers") == []
        assert column(pilot, "jobs", 2) == ["mail"]
        await press(pilot, "enter")
        assert "filter 'mail'" in news(pilot)
        await press(pilot, "p")  # keys act again
        assert column(pilot, "queues", 1) == ["paused"]
        await press(pilot, "escape")
        assert column(pilot, "queues") == ["mail", "work"]


async def test_it_looks_again_and_the_cursor_stays_on_its_queue(at_work: Storage) -> None:
    async with view(at_work).run_test(size=(150, 40)) as pilot:
        assert isinstance(pilot.app, Top)
        await press(pilot, "down")
        await put(at_work, "send", queue="first")
        await pilot.app.look()
        assert column(pilot, "queues") == ["first", "mail", "work"]
        assert pilot.app._selected("queues") == "work"


async def test_the_rate_is_of_jobs_that_ended_between_looks(storage: Storage) -> None:
    await put(storage, "send", queue="mail")
    async with view(storage).run_test(size=(150, 40)) as pilot:
        top = pilot.app
        assert isinstance(top, Top)
        assert column(pilot, "queues", 8) == ["-"]
        job = await take_one(storage, queue="mail", kinds=("send",))
        await storage.jobs.finalize(job.id, job.fence, Dead(ErrorText("no")))

        async def has_a_rate() -> bool:
            await top.look()
            return float(column(pilot, "queues", 8)[0]) > 0

        await until(has_a_rate)


async def test_a_store_that_does_not_answer_is_said_and_the_view_stays(storage: Storage) -> None:
    await put(storage, "send", queue="mail")
    async with view(storage).run_test(size=(150, 40)) as pilot:
        assert isinstance(pilot.app, Top)
        await storage.close()
        await pilot.app.look()
        assert "the store does not answer" in news(pilot)
        assert column(pilot, "queues") == ["mail"]
        await press(pilot, "p")  # an error, not a fault
        assert pilot.app.is_running


async def test_q_quits(storage: Storage) -> None:
    async with view(storage).run_test() as pilot:
        await press(pilot, "q")
    assert pilot.app.return_code == 0


def command(arguments: Sequence[str], folder: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    runs = f"{code}\nfrom forge_jobs.cli.main import main\nmain({[*arguments]!r})"
    return subprocess.run([sys.executable, "-c", runs], cwd=folder, capture_output=True, text=True, check=False)


def test_without_a_terminal_it_names_what_works(tmp_path: Path) -> None:
    done = command(["top"], tmp_path)
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_without_textual_it_names_the_extra(tmp_path: Path) -> None:
    hide = (
        "import importlib.util as u\nf = u.find_spec\nu.find_spec = lambda n, *a: None if n == 'textual' else f(n, *a)"
    )
    done = command(["top"], tmp_path, hide)
    assert done.returncode == 2
    assert "pip install 'forge-jobs[tui]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals")
def test_a_real_terminal_is_drawn_on_and_left_clean(tmp_path: Path) -> None:
    import pty

    subprocess.run(
        [sys.executable, "-m", "forge_jobs", "enqueue", "echo"], cwd=tmp_path, check=True, capture_output=True
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "forge_jobs", "top"], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while b"unserved" not in seen:
            seen += os.read(ours, 65_536)
        os.write(ours, b"q")
        while True:
            try:
                seen += os.read(ours, 65_536)
            except OSError:  # it closed its end
                break
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"\x1b[?1049h" in seen  # the other screen
    assert b"\x1b[?1049l" in seen  # and back
