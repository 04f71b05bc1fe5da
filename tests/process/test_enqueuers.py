"""Programs that enqueue, and what an acknowledgement is worth."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from forge_jobs import Storage

from .stage import Stage, rows, words

ACKNOWLEDGED = 30


@pytest.mark.parametrize(("place", "stored"), [("enqueue.before_commit", False), ("enqueue.after_commit", True)])
async def test_a_killed_enqueuer_leaves_what_it_was_told_and_may_repeat_the_rest(
    stage: Stage, storage: Storage, place: str, stored: bool
) -> None:
    status, said = await stage.act("enqueue", 10, failpoints=f"{place}=kill@5")
    assert status == -9
    tried = [job_id for word, job_id in said if word == "try"]
    acknowledged = [job_id for word, job_id in said if word == "ack"]
    assert (len(tried), len(acknowledged)) == (5, 4)
    found = set(await rows(storage))
    assert found == set(tried if stored else acknowledged)
    for times in range(2):
        _, [[word, job_id]] = await stage.act("repeat", tried[-1])
        assert word == ("repeated" if stored or times else "new"), "the same id is the same job"
        assert job_id == tried[-1]
    assert set(await rows(storage)) == set(tried)


async def test_every_acknowledged_job_of_a_killed_enqueuer_is_there(stage: Stage, storage: Storage) -> None:
    process = await stage.begin("enqueue", 100_000)
    assert process.stdout is not None
    said: list[list[str]] = []
    while sum(word == "ack" for word, _ in said) < 200:
        said += words(await process.stdout.readline())
    process.kill()
    said += words(await process.stdout.read())
    await process.wait()
    acknowledged = {line[1] for line in said if line[0] == "ack"}
    tried = {line[1] for line in said if line[0] == "try"}
    found = set(await rows(storage))
    assert acknowledged <= found <= tried
    assert len(found - acknowledged) <= 1


async def test_every_enqueue_is_synced_to_the_log_before_it_is_acknowledged(stage: Stage) -> None:
    trace = stage.folder / "trace"
    calls = "trace=fdatasync,fsync,write,openat"
    process = await stage.begin("enqueue", ACKNOWLEDGED, prefix=("strace", "-f", "-y", "-e", calls, "-o", str(trace)))
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert sum(word == "ack" for word, _ in words(out)) == ACKNOWLEDGED
    syncs = acknowledged = synced_since = 0
    for line in trace.read_text(errors="replace").splitlines():
        if re.search(rf"(fdatasync|fsync)\(\d+<{re.escape(str(stage.database))}-wal>", line):
            syncs += 1
            synced_since += 1
        elif re.search(r'write\(1<.*>, "ack ', line):
            acknowledged += 1
            assert synced_since, f"acknowledgement {acknowledged} came without a sync of the log before it"
            synced_since = 0
    assert acknowledged == ACKNOWLEDGED
    assert syncs >= ACKNOWLEDGED


async def test_a_storage_refuses_to_work_in_a_forked_child_and_works_on_in_the_parent(stage: Stage) -> None:
    status, said = await stage.act("fork")
    assert status == 0
    assert said == [
        ["refused", "_enqueue_one"],
        ["refused", "_count"],
        ["refused", "_beat_once"],
        ["parent", "0", "True"],
    ]


def test_the_ledger_reads_what_is_whole(tmp_path: Path) -> None:
    from . import ledger

    written = ledger.Ledger(str(tmp_path))
    written.write("start", job="a")
    (file,) = tmp_path.iterdir()
    with file.open("a") as torn:
        torn.write('{"what": "half')
    assert [entry.what for entry in ledger.read(tmp_path)] == ["start"]
