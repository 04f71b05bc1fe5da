"""How the file is opened, shared and kept small."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from forge_jobs import (
    Busy,
    ConfigError,
    EnqueueRequest,
    HandlerRegistry,
    InvalidInput,
    JobCtx,
    QueueRuntime,
    Storage,
    StoreConfig,
    StoreUnavailable,
    open_storage,
)
from forge_jobs.storage.error import IdReused
from forge_jobs.storage.sqlite import storage as opening
from forge_jobs.storage.sqlite.checkpoint import Log, checkpoint, is_safe_version
from forge_jobs.storage.sqlite.connection import connect
from forge_jobs.storage.types.job import Enqueued, JobFilter
from forge_jobs.testing.cluster import until
from forge_jobs.testing.factories import make_claim

from .log import commits


def request(n: int = 0, **fields: object) -> EnqueueRequest:
    return EnqueueRequest("brief", n, queue="default", **fields)  # type: ignore[arg-type]


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


# Settings


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("process", 1)])
def test_a_connection_logs_ahead_syncs_every_commit_and_never_checkpoints_by_itself(
    database: Path, durability: str, synchronous: int
) -> None:
    with closing(connect(database, durability=durability, create=True)) as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == synchronous
        assert pragma(connection, "wal_autocheckpoint") == 0
        assert connection.isolation_level is None
        assert pragma(connection, "busy_timeout") == 5_000


async def test_every_connection_of_a_working_process_has_automatic_checkpoints_off(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[sqlite3.Connection] = []

    class Seen(sqlite3.Connection):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **options)  # type: ignore[arg-type]
            made.append(self)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, factory=Seen, **options))
    handlers = HandlerRegistry()

    @handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None:
        live = [connection for connection in made if _is_open(connection)]
        found.update(f"{pragma(c, 'wal_autocheckpoint')}/{pragma(c, 'journal_mode')}" for c in live)
        counted.append(len(live))

    found: set[str] = set()
    counted: list[int] = []
    async with open_storage(f"sqlite:///{database}") as storage:
        await storage.jobs.enqueue(request())
        await QueueRuntime(storage, handlers).drain()
    assert found == {"0/wal"}
    assert counted[0] >= 4, "writer, checkpointer, reader, heart, watch"


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError:
        return False
    return True


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 0), True),
    ],
)
def test_the_versions_with_the_log_restart_defect_are_known(version: tuple[int, int, int], safe: bool) -> None:
    assert is_safe_version(version) is safe


# Checkpoints


async def test_the_log_stays_bounded_while_twenty_thousand_jobs_run(database: Path, storage: Storage) -> None:
    handlers = HandlerRegistry()
    most, over = 0, threading.Event()
    wal = database.with_name(database.name + "-wal")

    @handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None: ...

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, wal.stat().st_size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):
            await storage.jobs.enqueue_bulk([request(n) for n in range(1_000)])
        await QueueRuntime(storage, handlers, slots=100).drain()
    finally:
        over.set()
        watcher.join()
    assert await storage.jobs.count(JobFilter()) == {"done": 20_000}
    assert most < 24 * 1024 * 1024, f"{most / 1e6:.1f} MB"


async def test_nobody_can_commit_while_the_log_is_copied_back(database: Path) -> None:
    with (
        closing(connect(database, create=True)) as holder,
        closing(connect(database)) as worker,
        closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as other,
    ):
        holder.execute("CREATE TABLE t (x)")
        refused: list[str] = []

        def seen(statement: str) -> None:
            if "wal_checkpoint" in statement:
                try:
                    other.execute("INSERT INTO t VALUES (1)")
                except sqlite3.OperationalError as error:
                    refused.append(error.sqlite_errorname)
                else:
                    refused.append("committed")

        worker.set_trace_callback(seen)
        log = Log()
        log.wrote(10)
        checkpoint(holder, worker, log)
        assert refused == ["SQLITE_BUSY"]
        assert not holder.in_transaction
        assert log.guess == 0
        other.execute("INSERT INTO t VALUES (1)")


async def test_a_checkpoint_gives_the_lock_back_though_it_fails(database: Path) -> None:
    with closing(connect(database, create=True)) as holder, closing(connect(database)) as worker:
        worker.close()
        with pytest.raises(sqlite3.ProgrammingError):
            checkpoint(holder, worker, Log())
        assert not holder.in_transaction


async def test_an_idle_store_copies_its_log_back(database: Path, storage: Storage) -> None:
    await storage.jobs.enqueue(request())
    before = database.stat().st_mtime_ns
    await until(lambda: database.stat().st_mtime_ns > before, within_s=4)


# Group commit


async def test_callers_that_enqueue_together_share_commits(database: Path, storage: Storage) -> None:
    await storage.jobs.enqueue(request())
    before = commits(database)
    outcomes = await asyncio.gather(*(storage.jobs.enqueue(request(n)) for n in range(100)))
    assert len({outcome.id for outcome in outcomes}) == 100
    assert commits(database) - before <= 5
    assert sum((await storage.jobs.count(JobFilter())).values()) == 101


async def test_a_lone_enqueue_is_committed_at_once(database: Path, storage: Storage) -> None:
    await storage.jobs.enqueue(request())
    began = time.monotonic()
    for n in range(20):
        await storage.jobs.enqueue(request(n))
    assert (time.monotonic() - began) / 20 < 0.05
    assert commits(database) >= 20


async def test_one_bad_request_does_not_fail_those_who_share_its_transaction(storage: Storage) -> None:
    taken = (await storage.jobs.enqueue(request(1))).id
    requests = [request(n) for n in range(50)]
    requests[10] = request(99, id=taken)
    requests[20] = request(5, dedupe_key="bad\nkey")
    requests[30] = EnqueueRequest("brief", float("nan"), queue="default")
    outcomes = await asyncio.gather(*(storage.jobs.enqueue(r) for r in requests), return_exceptions=True)
    assert isinstance(outcomes[10], IdReused)
    assert isinstance(outcomes[20], InvalidInput)
    assert isinstance(outcomes[30], InvalidInput)
    good = [outcome for n, outcome in enumerate(outcomes) if n not in (10, 20, 30)]
    assert all(isinstance(outcome, Enqueued) for outcome in good)
    assert sum((await storage.jobs.count(JobFilter())).values()) == 48


async def test_a_caller_that_gives_up_waiting_does_not_disturb_its_neighbours(storage: Storage) -> None:
    impatient = asyncio.ensure_future(storage.jobs.enqueue(request(1)))
    patient = asyncio.ensure_future(storage.jobs.enqueue(request(2)))
    await asyncio.sleep(0)
    impatient.cancel()
    assert isinstance(await patient, Enqueued)


# Limits


@pytest.mark.parametrize("verb", ["enqueue", "enqueue_bulk", "claim", "pause"])
async def test_a_call_on_a_file_that_another_program_holds_ends_by_its_deadline_and_wrote_nothing(
    database: Path, verb: str
) -> None:
    async with open_storage(f"sqlite:///{database}", config=StoreConfig(store_deadline_s=0.4)) as storage:
        await storage.queues.ensure("default")
        calls = {
            "enqueue": lambda: storage.jobs.enqueue(request()),
            "enqueue_bulk": lambda: storage.jobs.enqueue_bulk([request()]),
            "claim": lambda: storage.jobs.claim(make_claim(queue="default", kinds=("brief",))),
            "pause": lambda: storage.queues.pause("default"),
        }
        with closing(sqlite3.connect(database, isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(Busy):
                await calls[verb]()  # type: ignore[no-untyped-call]
            assert 0.3 < time.monotonic() - began < 1.5
            assert await storage.jobs.count(JobFilter()) == {}, "reads go on"
        await until_free(storage)
        assert await storage.jobs.count(JobFilter()) == {"pending": 1}
        settings = await storage.queues.get("default")
        assert settings is not None
        assert not settings.paused


async def until_free(storage: Storage) -> None:
    """The store takes writes again, soon after the lock is gone."""

    async def takes() -> bool:
        try:
            await storage.jobs.enqueue(request())
        except Busy:
            return False
        return True

    await until(takes, within_s=3)


async def test_a_lock_held_for_a_moment_is_waited_for(database: Path, storage: Storage) -> None:
    foreign = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(0.5, foreign.close)
    began = time.monotonic()
    await storage.jobs.enqueue(request())
    assert 0.4 < time.monotonic() - began < 1.5


async def test_a_closed_storage_says_so(database: Path) -> None:
    async with open_storage(f"sqlite:///{database}") as storage:
        await storage.jobs.enqueue(request())
    with pytest.raises(StoreUnavailable, match="closed"):
        await asyncio.wait_for(storage.jobs.enqueue(request()), 2)
    with pytest.raises(StoreUnavailable, match="closed"):
        await storage.queues.counts()
    await storage.close()


# Places


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
async def test_a_network_file_system_is_refused_unless_it_is_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(opening, "file_system", lambda directory: kind)
    with pytest.raises(ConfigError, match=kind):
        async with open_storage(f"sqlite:///{tmp_path}/jobs.db"):
            pass
    assert list(tmp_path.iterdir()) == []
    forced = StoreConfig(force_network_fs=True)
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db", config=forced) as storage:
        await storage.jobs.enqueue(request())


def test_the_file_system_of_a_directory_is_that_of_its_nearest_mount() -> None:
    assert opening.file_system(Path("/proc/self")) == "proc"
    assert opening.file_system(Path("/")) not in ("", "proc")


async def test_a_missing_directory_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="nowhere"):
        async with open_storage(f"sqlite:///{tmp_path}/nowhere/jobs.db"):
            pass
    with pytest.raises(StoreUnavailable, match=r"missing\.db"):
        async with open_storage(f"sqlite:///{tmp_path}/missing.db", create=False):
            pass


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(database: Path) -> None:
    database.write_text("Dear diary, " * 1_000)
    with pytest.raises(StoreUnavailable):
        async with open_storage(f"sqlite:///{database}"):
            pass
    assert database.read_text().startswith("Dear diary")


# Backup


async def test_a_backup_taken_while_workers_run_is_a_store_of_one_moment(
    database: Path, storage: Storage, tmp_path: Path
) -> None:
    """Each job makes its successor before it ends, so in a copy of one moment every job that is done has a child."""
    handlers = HandlerRegistry()

    @handlers.handler("brief")
    async def brief(ctx: JobCtx, payload: int) -> None:
        await ctx.enqueue(request(payload + 1))

    for _ in range(20):
        await storage.jobs.enqueue(request(0))
    runtime = QueueRuntime(storage, handlers, slots=20)
    await runtime.start()
    copies = []
    for number in range(3):
        await until(lambda number=number: runtime.report.finished > 300 * (number + 1))  # type: ignore[misc]
        copies.append(tmp_path / f"copy-{number}.db")
        await storage.maintenance.backup(str(copies[-1]))
    await runtime.stop(1)
    for copy in copies:
        with closing(sqlite3.connect(copy)) as opened:
            assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            childless = "SELECT count(*) FROM forge_jobs p WHERE status = 'done' AND NOT EXISTS "
            assert opened.execute(f"{childless} (SELECT 1 FROM forge_jobs c WHERE c.parent_id = p.id)").fetchone() == (
                0,
            )
        async with open_storage(f"sqlite:///{copy}") as restored:
            counts = await restored.jobs.count(JobFilter())
            assert counts["done"] >= 300
            assert not set(counts) - {"done", "pending", "in_progress"}
            await restored.jobs.enqueue(request())
    with pytest.raises(StoreUnavailable, match="exists"):
        await storage.maintenance.backup(str(copies[0]))


# A file that goes away


async def test_a_connection_opened_after_the_file_was_deleted_makes_no_new_one(
    database: Path, storage: Storage
) -> None:
    """An empty file in its place would be taken for a store without jobs."""
    await storage.jobs.enqueue(request())
    database.unlink()
    with pytest.raises(StoreUnavailable):
        storage.processes.open_heart(timedelta(seconds=1)).close()
    reads = [asyncio.ensure_future(storage.queues.counts()) for _ in range(20)]
    await asyncio.gather(*reads, return_exceptions=True)
    assert not database.exists()


async def test_a_status_of_a_newer_version_is_shown_as_text_and_left_alone(database: Path, storage: Storage) -> None:
    handlers = HandlerRegistry()

    @handlers.handler("brief")
    async def brief(ctx: JobCtx) -> None: ...

    strange, ordinary = [(await storage.jobs.enqueue(request(n))).id for n in range(2)]
    with closing(sqlite3.connect(database)) as newer, newer:
        newer.execute("UPDATE forge_jobs SET status = 'archived', ready = NULL WHERE id = ?", (strange,))
    await QueueRuntime(storage, handlers).drain()
    assert {row.id: row.status for row in (await storage.jobs.list_jobs(JobFilter())).items} == {
        strange: "archived",
        ordinary: "done",
    }
    assert (await storage.queues.counts())["default"].done == 1
