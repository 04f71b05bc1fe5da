"""A file that was open at a fork is refused in the child, where SQLite would take no lock on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, sys, threading
from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.storage.error import ForkedConnection

url, other = sys.argv[1:]

async def add(url):
    async with open_storage(url) as storage:
        await storage.jobs.enqueue(EnqueueRequest("k", queue="q"))

def child():
    for target in (url, other):
        try:
            asyncio.run(add(target))
            print("opened", flush=True)
        except ForkedConnection as error:
            print("refused:", error, flush=True)

async def main():
    async with open_storage(url) as storage:
        pid = os.fork()
        if pid == 0:
            thread = threading.Thread(target=child)
            thread.start()
            thread.join()
            os._exit(0)
        os.waitpid(pid, 0)
        await storage.jobs.enqueue(EnqueueRequest("k", queue="q"))

asyncio.run(main())
if os.fork() == 0:
    child()
    os._exit(0)
os.wait()
"""


def test_a_file_open_at_a_fork_is_refused_in_the_child_and_no_other(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("jobs", "other")]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *urls], capture_output=True, text=True, timeout=60, check=True
    )
    open_at_fork, another, closed_before, _ = ran.stdout.splitlines()
    assert open_at_fork.startswith("refused:")
    assert "close it before the fork" in open_at_fork
    assert another == "opened"
    assert closed_before == "opened"
