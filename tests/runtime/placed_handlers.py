"""Handlers of which most leave it to their queue where they run. Each says where by ending its job `dead`."""

from __future__ import annotations

import os
import threading
from typing import Final

from forge_jobs import Dead, HandlerRegistry, JobCtx
from forge_jobs.handlers import CmdExec

handlers = HandlerRegistry()
handlers.register(CmdExec(allow_any=True))
PATH: Final = f"{__name__}:handlers"
released = threading.Event()
"""Ends the handlers that hang."""


def here() -> Dead:
    return Dead(f"{os.getpid()} {threading.current_thread().name}")


@handlers.handler("plain")
def plain(ctx: JobCtx) -> Dead:
    return here()


@handlers.handler("looped")
async def looped(ctx: JobCtx) -> Dead:
    return here()


@handlers.handler("own.thread", executor="thread")
def own_thread(ctx: JobCtx) -> Dead:
    return here()


@handlers.handler("own.async", executor="async")
async def own_async(ctx: JobCtx) -> Dead:
    return here()


@handlers.handler("hang", executor="thread", timeout=0.05, cancel_grace=0)
def hang(ctx: JobCtx) -> None:
    released.wait(60)
