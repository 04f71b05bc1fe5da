"""Handlers that tests have children run. Each says what it saw by ending its job `dead` with the text."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from forge_jobs import Dead, Done, EnqueueRequest, Failed, HandlerRegistry, JobCtx
from forge_jobs.runtime.handler_function import Decorator
from forge_jobs.storage.error import InvalidInput

handlers = HandlerRegistry()
PATH: Final = f"{__name__}:handlers"
LONG_S: Final = 30.0


def child(kind: str, **options: Any) -> Decorator:
    return handlers.handler(kind, executor="process", **options)


@dataclass
class Letter:
    to: str
    copies: int = 1


@handlers.lifespan
async def maker() -> AsyncIterator[int]:
    yield os.getpid()


@child("typed")
def typed(ctx: JobCtx, letter: Letter, *, maker: int) -> Dead:
    return Dead(f"{letter} {maker == os.getpid()} {ctx.state.maker == maker}")


@child("typed.async")
async def typed_async(letter: Letter, *, maker: int) -> Dead:
    return Dead(f"{letter} {maker == os.getpid()}")


@child("pid")
def pid(ctx: JobCtx) -> Dead:
    return Dead(f"{os.getpid()} {os.getppid()} {os.getpgid(0)}")


@child("die")
def die(payload: dict[str, Any]) -> None:
    if "signal" in payload:
        os.kill(os.getpid(), payload["signal"])
        time.sleep(LONG_S)
    print("last words", file=sys.stderr, flush=True)
    os._exit(payload["code"])


@child("sleep")
def sleep(ctx: JobCtx, payload: dict[str, float]) -> None:
    time.sleep(payload["s"])


@child("talk")
def talk(ctx: JobCtx) -> Done:
    print("\x00\x00\x00\x05hello", flush=True)
    for _ in range(2000):
        os.write(1, b"x" * 99 + b"\n")
    return Done()


@child("garble")
def garble(ctx: JobCtx) -> None:
    os.write(4, b"\x00\x00\x00\x05hello")
    time.sleep(LONG_S)


@child("environment")
def environment(ctx: JobCtx) -> Dead:
    return Dead(" ".join(sorted(name for name in os.environ if not name.startswith("LC_"))))


@child("descriptors")
def descriptors(ctx: JobCtx) -> Dead:
    inherited = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
    return Dead(" ".join(inherited.stdout.split()))


@child("no_store")
def no_store(ctx: JobCtx) -> Any:
    said = []
    for what in (lambda: ctx.storage, lambda: ctx.router, lambda: ctx.transaction()):
        try:
            what()
        except InvalidInput as error:
            said.append(str(error).partition(" ")[0])
    return Dead(" ".join(said))


@child("memory")
def memory(ctx: JobCtx) -> Failed:
    return Failed(str(len(bytearray(2**31))))


@child("hog", backoff=[60])
def hog(ctx: JobCtx, payload: dict[str, int]) -> None:
    """Take more and more memory, up to so many MiB; then hold it."""
    taken = []
    for n in range(payload["mib"] // 16):
        taken.append(bytearray(16 * 2**20))
        ctx.progress(n)
        time.sleep(0.002)
    time.sleep(LONG_S)


@child("limits")
def limits(ctx: JobCtx) -> Dead:
    return Dead(f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} {resource.getrlimit(resource.RLIMIT_AS)[0] // 2**20}")


@child("grow")
def grow(ctx: JobCtx) -> Dead:
    kept.append(bytearray(os.urandom(1) * (64 * 2**20)))
    return Dead(str(os.getpid()))


@child("grandchild", timeout=1.0, cancel_grace=0.1, backoff=[60])
def grandchild(ctx: JobCtx, payload: dict[str, str]) -> None:
    program = f"import time; open({payload['file']!r}, 'w').write('x')\nwhile True: time.sleep(0.02)"
    subprocess.run([sys.executable, "-c", program, payload["mark"]], check=False)


@child("big_follow_up")
def big_follow_up(ctx: JobCtx) -> Dead:
    try:
        ctx.run_sync(ctx.enqueue_bulk([EnqueueRequest("later", "x" * 900_000) for _ in range(3)]))
    except InvalidInput as error:
        return Dead(str(error))
    return Dead("it fitted")


@child("budget")
async def budget(ctx: JobCtx) -> Dead:
    first = await ctx.rate_limit.acquire("pot", 2)
    second = await ctx.rate_limit.acquire("pot", 2)
    drained = await ctx.rate_limit.drain("pot")
    return Dead(f"{type(first).__name__} {type(second).__name__} {drained}")


@child("fork")
def fork(ctx: JobCtx) -> None:
    if (forked := os.fork()) == 0:
        ctx.log.warning("from a fork %s", "x" * 100)
        os._exit(0)
    os.waitpid(forked, 0)


@child("crunch")
def crunch(payload: dict[str, int]) -> None:
    total = 0
    for n in range(payload["n"]):
        total += n * n


@child("term")
def term(ctx: JobCtx) -> Dead:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(10):
        time.sleep(0.01)
    return Dead("still here")


kept: list[bytearray] = []
