"""Several processes on one file."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from forge_jobs import EnqueueRequest, Storage, open_storage
from forge_jobs.storage.sqlite.wake import socket_directory
from forge_jobs.testing.cluster import until

from .stage import QUICK, Stage, all_finished, put, when

DRAINED = 2_000


async def test_two_workers_drain_a_queue_together_and_run_each_job_once(stage: Stage, storage: Storage) -> None:
    requests = [EnqueueRequest("brief", 0, queue="default") for _ in range(DRAINED)]
    ids = [outcome.id for outcome in await storage.jobs.enqueue_bulk(requests)]
    with stage.cluster(2, slots=20):
        assert await all_finished(storage, within_s=20) == {"done": DRAINED}
    runs = stage.runs()
    assert set(runs) == set(ids)
    assert set(runs.values()) == {1}
    shares = {entry.pid for entry in stage.read("start")}
    assert len(shares) == 2, "both had a part"


# Migrations


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
async def test_ten_processes_that_start_together_on_an_empty_file_are_all_healthy(tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        stage = Stage(folder)
        failed, said = await stage.act("migrate_together", 10)
        assert (failed, [word for word, *_ in said]) == (0, ["ready"] * 10)
        assert max(float(took) for _, _, took in said) < 5
        with closing(sqlite3.connect(stage.database)) as database:
            steps = database.execute("SELECT version, count(*) FROM forge_schema GROUP BY version").fetchall()
            jobs = database.execute("SELECT count(*) FROM forge_jobs").fetchone()[0]
        assert {count for _, count in steps} == {1}, "each step was applied once"
        assert jobs == 10


async def test_a_process_killed_in_the_middle_of_a_migration_leaves_it_to_the_next(stage: Stage) -> None:
    status, _ = await stage.act("migrate", failpoints="migrate.before_commit=kill")
    assert status == -9
    with closing(sqlite3.connect(stage.database)) as database:
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0, "none of it is there"
    status, [[word, version, _]] = await stage.act("migrate")
    assert (status, word, int(version) >= 1) == (0, "ready", True)


# Heartbeats beside saturated writers


@pytest.mark.parametrize(("writers", "seconds"), [(4, 3), pytest.param(8, 20, marks=pytest.mark.slow)])
async def test_heartbeats_are_accepted_promptly_beside_saturated_writers(
    stage: Stage, writers: int, seconds: int, record_property: Any
) -> None:
    await stage.act("migrate")
    busy = [await stage.begin("saturate") for _ in range(writers)]
    for process in busy:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 10) == b"ready\n"
    status, [[*parts]] = await stage.act("beat", seconds, within_s=seconds + 10)
    assert status == 0
    took = sorted(json.loads("".join(parts)))
    for process in busy:
        assert process.returncode is None, "a writer gave up"
        process.kill()
        await process.communicate()
    p50, p99, most = took[len(took) // 2], took[int(len(took) * 0.99)], took[-1]
    figures = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {most:.1f} ms of {len(took)} beats beside {writers} writers"
    record_property("beats", figures)
    print(figures)
    assert took[int(len(took) * 0.95)] <= 100, figures


# Wake-ups


async def test_an_idle_worker_of_another_process_starts_a_new_job_without_waiting_for_its_poll(
    stage: Stage, storage: Storage
) -> None:
    with stage.cluster(1, config=replace(QUICK, poll_ms=60_000)) as cluster:
        await until(lambda: "worker_started" in cluster.log("worker-0"))
        for _ in range(5):
            assert await pickup_s(stage, storage) < 0.3


async def test_a_wake_up_needs_no_socket(stage: Stage, storage: Storage) -> None:
    """The directory of the sockets cannot be made: a file is in its place."""
    directory = socket_directory(stage.database)
    shutil.rmtree(directory, ignore_errors=True)
    directory.write_text("in the way")
    with stage.cluster(1, config=replace(QUICK, poll_ms=60_000)) as cluster:
        await until(lambda: "worker_started" in cluster.log("worker-0"))
        assert "poll_mode" in cluster.log("worker-0")
        for _ in range(5):
            assert await pickup_s(stage, storage) < 0.3


async def test_a_wake_up_survives_the_loss_of_the_sockets(stage: Stage, storage: Storage) -> None:
    with stage.cluster(1, config=replace(QUICK, poll_ms=60_000)) as cluster:
        await until(lambda: "worker_started" in cluster.log("worker-0"))
        assert await pickup_s(stage, storage) < 0.3
        shutil.rmtree(socket_directory(stage.database))
        assert await pickup_s(stage, storage) < 0.3


async def pickup_s(stage: Stage, storage: Storage) -> float:
    """How long after its enqueue was acknowledged a job was started."""
    job_id = await put(storage)
    enqueued = time.monotonic()
    await when(storage, job_id, "done")
    (start,) = [entry for entry in stage.read("start") if entry.job == job_id]
    return start.at - enqueued


async def test_a_killed_workers_socket_is_swept_away(stage: Stage, storage: Storage) -> None:
    directory = socket_directory(stage.database)
    with stage.cluster(1) as cluster:
        (orphan,) = await until(lambda: list(directory.glob("*.sock")) if directory.exists() else [])
        cluster.kill("worker-0")
        await put(storage)
        assert not orphan.exists()


# A full disk


@pytest_asyncio.fixture
async def small_disk(tmp_path: Path) -> AsyncIterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    await command("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place))
    try:
        yield place
    finally:
        await command("umount", "-l", str(place))


async def command(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0, argv


async def test_a_full_disk_is_the_enqueuers_to_know_and_loses_nothing(small_disk: Path) -> None:
    stage = Stage(small_disk)
    process = await stage.begin("fill", 4_000_000)
    assert process.stdout is not None
    said: list[list[str]] = []
    while not said or said[-1][0] == "ack":
        said += words_of(await asyncio.wait_for(process.stdout.readline(), 10))
    assert said[-1][0] == "full", said[-1]
    acknowledged = {job_id for word, job_id in said if word == "ack"}
    assert len(acknowledged) > 10
    await command("mount", "-o", "remount,size=16m", str(small_disk))
    process.send_signal(10)
    out, _ = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0
    assert words_of(out) == [["ack", said[-1][1]]], "the refused one went in when there was space"
    async with open_storage(stage.url) as storage:
        from .stage import rows

        assert set(await rows(storage)) == acknowledged | {said[-1][1]}


async def test_a_worker_on_a_full_disk_waits_and_goes_on_when_there_is_space(small_disk: Path, tmp_path: Path) -> None:
    stage = Stage(small_disk)
    ballast = small_disk / "ballast"
    async with open_storage(stage.url) as storage:
        with stage_outside(stage, tmp_path).cluster(1) as cluster:
            await when(storage, await put(storage), "done")
            job_id = await put(storage, "long", 0.8)
            await when(storage, job_id, "in_progress")
            fill_up(ballast)
            await until(lambda: "StoreFull" in cluster.log("worker-0") or "disk" in cluster.log("worker-0"))
            assert cluster.exit_status("worker-0") is None
            ballast.unlink()
            await when(storage, job_id, "done")
            await when(storage, await put(storage), "done")
            assert cluster.stop("worker-0") == 0


def stage_outside(stage: Stage, folder: Path) -> Stage:
    """The same database, with ledger and logs on another disk."""
    outside = Stage(folder)
    outside.database, outside.url = stage.database, stage.url
    return outside


def fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as opened:
        try:
            while opened.write(bytes(4_096)):
                pass
        except OSError:
            pass


def words_of(line: bytes) -> list[list[str]]:
    return [part.split() for part in line.decode().splitlines()]
