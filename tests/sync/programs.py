"""Synchronous programs as others write them: `python -m sync.programs NAME URL …`. What they achieved is on stdout, one
line per step, each by a single write."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from forge_jobs import EnqueueRequest, ForkedConnection, StoreConfig, SyncQueue
from forge_jobs.storage.types.answers import CancelOutcome
from forge_jobs.storage.types.job import JobFilter

queue: SyncQueue
"""A global, as in a web application, and never closed."""


def say(*words: object) -> None:
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def enqueue(who: object, count: int = 1) -> None:
    for _ in range(count):
        say("ack", queue.enqueue(EnqueueRequest("mail", str(who))).id)


def leave(how: str) -> None:
    """End without a close: at the last line, by an error, by sys.exit, or while threads go on enqueueing."""
    enqueue("main", 5)
    if how == "error":
        raise LookupError("of the program")
    if how == "exit":
        sys.exit(3)
    if how == "threads":
        for n in range(4):
            threading.Thread(target=enqueue, args=(n, 1_000_000), daemon=True).start()
        time.sleep(0.2)
    if how == "at_exit":
        atexit.register(enqueue, "main at its exit", 3)
    if how == "other_thread":
        threading.Thread(target=enqueue, args=("the last thread", 100)).start()


def prefork(children: str) -> None:
    """Threads enqueue and read without pause while the program forks; the children enqueue and end like programs."""
    stop = threading.Event()

    def work(n: int) -> None:
        while not stop.is_set():
            enqueue(n)
            queue.count(JobFilter())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for n in range(int(children)):
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            say("threads", *(thread.name for thread in threading.enumerate()))
            enqueue(f"child {n}", 10)
            say("locks", *sorted(_locks()))
            sys.exit(0)
        say("forked", f"{time.monotonic() - began:.3f}")
        enqueue("main", 5)
        say("child", os.waitpid(child, 0)[1])
    stop.set()
    for thread in threads:
        thread.join()


def _locks() -> set[str]:
    """On which files of the database the kernel knows of locks of this process."""
    database = Path(sys.argv[2].removeprefix("sqlite:///"))
    names = {database.with_name(database.name + end).stat().st_ino: end.lstrip("-") or "db" for end in ("", "-shm")}
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    held = {int(f[5].rpartition(":")[2]) for f in fields if f[1] == "POSIX" and f[4] == str(os.getpid())}
    return {name for inode, name in names.items() if inode in held}


def parent_closes() -> None:
    """The parent closes its queue while its child uses it, and the child dies without a close."""
    ready_r, ready_w = os.pipe()
    closed_r, closed_w = os.pipe()
    enqueue("main")
    child = os.fork()
    if child == 0:
        enqueue("child")
        os.write(ready_w, b"!")
        os.read(closed_r, 1)
        enqueue("child", 20)
        os._exit(0)
    os.read(ready_r, 1)
    enqueue("main")
    queue.close()
    os.write(closed_w, b"!")
    say("child", os.waitpid(child, 0)[1])


def grandchildren() -> None:
    """A child forks in its turn."""
    enqueue("main")
    child = os.fork()
    if child == 0:
        enqueue("child")
        grandchild = os.fork()
        if grandchild == 0:
            enqueue("grandchild")
            sys.exit(0)
        enqueue("child again")
        sys.exit(os.waitpid(grandchild, 0)[1])
    say("child", os.waitpid(child, 0)[1])
    enqueue("main again")


def _in_pool(n: int) -> str:
    return queue.enqueue(EnqueueRequest("mail", n)).id


def pool() -> None:
    """A pool of forked processes uses the queue that the program has used."""
    enqueue("main")
    with multiprocessing.get_context("fork").Pool(3) as processes:
        for job_id in processes.map(_in_pool, range(30)):
            say("ack", job_id)
        processes.close()
        processes.join()
    enqueue("main")


def in_memory() -> None:
    """A store in memory stays with the parent."""
    enqueue("main", 2)
    child = os.fork()
    if child == 0:
        try:
            enqueue("child")
        except ForkedConnection:
            say("refused")
        queue.close()
        with SyncQueue("sqlite:///:memory:") as own:
            own.enqueue(EnqueueRequest("mail"))
            say("own", own.count(JobFilter())["pending"])
        sys.exit(0)
    say("child", os.waitpid(child, 0)[1])
    enqueue("main")
    say("main", queue.count(JobFilter())["pending"])


def foreign_fork() -> None:
    """A server written in C forks and tells Python of it only in the child."""
    enqueue("main")
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        try:
            enqueue("child")
        except ForkedConnection:
            say("refused")
        queue.close()
        sys.exit(0)
    say("child", os.waitpid(child, 0)[1])
    enqueue("main")


def interrupted(verb: str) -> None:
    """Ctrl-C while a call waits; then go on, each time when told to by a line on stdin."""
    enqueue("main")
    job_id = queue.enqueue(EnqueueRequest("never_run")).id
    say("ready")
    sys.stdin.readline()
    threading.Thread(target=_tell_when_in, args=(verb, threading.get_ident())).start()
    try:
        queue.wait(job_id, timeout=60) if verb == "wait" else queue.enqueue(EnqueueRequest("mail", "lost"))
    except KeyboardInterrupt:
        say("interrupted")
    sys.stdin.readline()
    enqueue("main", 3)
    say("cancelled", queue.cancel(job_id) == CancelOutcome.CANCELLED)


def _tell_when_in(verb: str, thread: int) -> None:
    """Say so once that thread is inside this method of the queue."""
    code = getattr(SyncQueue, verb).__code__
    while code not in {frame.f_code for frame, _ in traceback.walk_stack(sys._current_frames()[thread])}:
        time.sleep(0.001)
    say("waiting")


PROGRAMS: Final[dict[str, Callable[..., None]]] = {
    program.__name__: program
    for program in (leave, prefork, parent_closes, grandchildren, pool, in_memory, foreign_fork, interrupted)
}


def main() -> None:
    global queue
    name, url, *rest = sys.argv[1:]
    queue = SyncQueue(url, config=StoreConfig(event_flush_s=600))
    PROGRAMS[name](*rest)


if __name__ == "__main__":
    main()
