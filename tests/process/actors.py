"""Small programs that use a store as others do: `python -m process.actors NAME URL …`. What they achieved is on stdout,
one line per step, each by a single write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

from forge_jobs import EnqueueRequest, ForkedConnection, Storage, StorageError, StoreFull, failpoints, open_storage
from forge_jobs.ids import new_id
from forge_jobs.storage.types.process import ProcessInfo, ProcessState

QUEUE: Final = "default"


def say(*words: object) -> None:
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


async def enqueue(url: str, count: str, kind: str = "brief", pause_s: str = "0") -> None:
    """Enqueue one by one; each id is said before and acknowledged after."""
    async with open_storage(url) as storage:
        for _ in range(int(count)):
            job_id = new_id()
            say("try", job_id)
            await storage.jobs.enqueue(EnqueueRequest(kind, 0, queue=QUEUE, id=job_id))
            say("ack", job_id)
            await asyncio.sleep(float(pause_s))


async def repeat(url: str, job_id: str, kind: str = "brief") -> None:
    """Enqueue with a given id."""
    async with open_storage(url) as storage:
        outcome = await storage.jobs.enqueue(EnqueueRequest(kind, 0, queue=QUEUE, id=job_id))
        say("repeated" if getattr(outcome, "repeated", False) else "new", outcome.id)


async def migrate(url: str) -> None:
    """Open the store, use it, and tell how long that took."""
    began = time.monotonic()
    async with open_storage(url) as storage:
        await storage.jobs.enqueue(EnqueueRequest("brief", 0, queue=QUEUE))
        status = await storage.maintenance.status()
    say("ready", status["schema_version"], f"{time.monotonic() - began:.3f}")


def migrate_together(url: str, count: str) -> None:
    """`migrate` in so many processes at the same moment."""
    backend = "postgres" if url.startswith("postgres") else "sqlite"
    import_module(f"forge_jobs.storage.{backend}.storage")  # so that the children do not all read the disk first
    go_r, go_w = os.pipe()
    children = []
    for _ in range(int(count)):
        child = os.fork()
        if child == 0:
            os.close(go_w)
            os.read(go_r, 1)  # returns when the last writing end is closed
            try:
                asyncio.run(migrate(url))
            except BaseException as error:
                say("failed", repr(error))
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(go_w)
    sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))


async def saturate(url: str, callers: str = "20") -> None:
    """So many callers enqueue one job after the other, until killed: a write always waits."""
    async with open_storage(url) as storage:

        async def call() -> None:
            while True:
                await storage.jobs.enqueue(EnqueueRequest("brief", "x" * 200, queue=QUEUE))

        say("ready")
        await asyncio.gather(*(call() for _ in range(int(callers))))


async def beat(url: str, seconds: str) -> None:
    """Beat like a worker's heart, fifty times a second, and tell how long each beat took in milliseconds."""
    took: list[float] = []

    def run(storage: Storage) -> None:
        heart = storage.processes.open_heart(timedelta(seconds=5))
        info = ProcessInfo(
            host_id=new_id(),
            label="beater",
            host_name="host",
            pid=os.getpid(),
            version="0",
            queues=(QUEUE,),
            kinds=(),
            slots={},
            running={},
            state=ProcessState.RUNNING,
        )
        end, pause = time.monotonic() + float(seconds), threading.Event()
        while time.monotonic() < end:
            began = time.monotonic()
            heart.beat(info, ())
            took.append((time.monotonic() - began) * 1_000)
            pause.wait(0.02)
        heart.close()

    async with open_storage(url) as storage:
        await asyncio.to_thread(run, storage)
    say(json.dumps(took))


async def fork(url: str) -> None:
    """Use the storage in a child made by fork."""
    async with open_storage(url) as storage:
        await storage.jobs.enqueue(EnqueueRequest("brief", 0, queue=QUEUE))
        child = os.fork()
        if child == 0:
            for use in (_enqueue_one, _count, _beat_once):
                try:
                    asyncio.run(asyncio.wait_for(use(storage), 2))
                except ForkedConnection:
                    say("refused", use.__name__)
                except BaseException as error:
                    say("other", use.__name__, repr(error))
                else:
                    say("worked", use.__name__)
            os._exit(0)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        outcome = await storage.jobs.enqueue(EnqueueRequest("brief", 0, queue=QUEUE))
        say("parent", status, bool(outcome.id))


async def _enqueue_one(storage: Storage) -> None:
    await storage.jobs.enqueue(EnqueueRequest("brief", 0, queue=QUEUE))


async def _count(storage: Storage) -> None:
    await storage.queues.counts()


async def _beat_once(storage: Storage) -> None:
    storage.processes.open_heart(timedelta(seconds=1))


async def fill(url: str, limit_bytes: str) -> None:
    """Enqueue until the disk is full, then, told by SIGUSR1 that there is space, once more."""
    go_on = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, go_on.set)
    async with open_storage(url) as storage:
        for _ in range(int(limit_bytes) // 10_000):
            job_id = new_id()
            try:
                await storage.jobs.enqueue(EnqueueRequest("brief", "x" * 20_000, queue=QUEUE, id=job_id))
            except StoreFull:
                say("full", job_id)
                break
            except StorageError as error:
                say("other", repr(error))
                break
            say("ack", job_id)
        await go_on.wait()
        await storage.jobs.enqueue(EnqueueRequest("brief", 0, queue=QUEUE, id=job_id))
        say("ack", job_id)


ACTORS: Final[dict[str, Callable[..., Coroutine[Any, Any, None]]]] = {
    actor.__name__: actor for actor in (enqueue, repeat, migrate, saturate, beat, fork, fill)
}


def main() -> None:
    failpoints.arm_from(os.environ)
    name, url, *rest = sys.argv[1:]
    if name == "migrate_together":
        migrate_together(url, *rest)
    asyncio.run(ACTORS[name](url, *rest))


if __name__ == "__main__":
    main()
