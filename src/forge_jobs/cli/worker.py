"""`forge-jobs worker`: a process that runs jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import rich_click

from forge_jobs import failpoints, limits
from forge_jobs.cli import output
from forge_jobs.cli.errors import FAILURE, Failure, Usage, report
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.load_registry import load_registry
from forge_jobs.cli.logs import log_the_rest, log_to_stderr
from forge_jobs.cli.parameters import Duration, Invocation, global_options
from forge_jobs.cli.settings import Settings, parse_pairs
from forge_jobs.cli.store import opened, settings_of
from forge_jobs.cli.worker_http import Address, check_installed, serving
from forge_jobs.clock import SHARED_CLOCK, Clock
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.queue_runtime import QueueRuntime, Report
from forge_jobs.storage.protocol import Storage

if TYPE_CHECKING:
    from forge_jobs.probe import ProbeServer

log = logging.getLogger("forge_jobs.worker")

THREADS_GRACE_S: Final = 1.0
"""How long threads of handlers get to end once everything is recorded; they do not keep the process alive."""
OVERRUN_S: Final = 5.0
"""A shutdown that takes longer than its grace and this much is cut off."""
SPARE_THREADS: Final = 8
"""For what is not a handler: name look-ups, file checks."""
RELOADED: Final = "FORGE_RELOADED"
"""Says to a worker that it is the child of one with `--reload`."""


@rich_click.command("worker", cls=Command)
@rich_click.argument("target", metavar="MODULE:REGISTRY")
@rich_click.option("--queues", metavar="NAME,…", help="The queues to serve; `default` if not given.")
@rich_click.option(
    "--slots",
    type=click.IntRange(1, limits.SLOTS_PER_PROCESS),
    help="Most jobs of one queue at a time in this process; 10 if not given.",
)
@rich_click.option(
    "--executor",
    "executors",
    metavar="QUEUE=EXECUTOR",
    multiple=True,
    help="Where handlers of a queue run that do not say so themselves: async, thread or process.",
)
@rich_click.option("--name", metavar="LABEL", help="What people call this worker.")
@rich_click.option("--drain", is_flag=True, help="Stop when nothing of these queues and kinds is ready or running.")
@rich_click.option("--drain-all", is_flag=True, help="Stop when nothing waits for a later time either.")
@rich_click.option("--max-jobs", type=click.IntRange(min=1), help="End after so many jobs, for a fresh start.")
@rich_click.option("--max-rss-mib", type=click.IntRange(min=1), help="End when the process has grown so large, in MiB.")
@rich_click.option("--reload", is_flag=True, help="Start anew when a source file changes. For development.")
@rich_click.option("--grace", type=Duration(), help="How long handlers get to end at shutdown; 25s if not given.")
@rich_click.option(
    "--http",
    type=Address(),
    metavar="[HOST:]PORT",
    help="Serve /livez, /readyz and /metrics there; the host is 127.0.0.1 if not given.",
)
@global_options
@click.pass_context
def worker(
    ctx: click.Context,
    target: str,
    queues: str | None,
    slots: int | None,
    executors: tuple[str, ...],
    name: str | None,
    drain: bool,
    drain_all: bool,
    max_jobs: int | None,
    max_rss_mib: int | None,
    reload: bool,
    grace: timedelta | None,
    http: tuple[str, int] | None,
) -> None:
    """Run the jobs whose handlers are in REGISTRY of MODULE, found from the current directory.

    SIGTERM or Ctrl-C stops it: no new jobs, and handlers are told and get their grace. A second one ends them at once,
    a third the process. --max-jobs and --max-rss-mib end it too, with code 0, once the jobs that run are done: for a
    supervisor to start it anew. Exit code 1 if work was abandoned or the store became unusable.

    \b
    Example:
      forge-jobs worker app:handlers
      forge-jobs worker app:handlers --queues mail,default --slots 20
      forge-jobs worker app:handlers --queues default,reports --executor reports=process
      forge-jobs worker app:handlers --drain
      forge-jobs worker app:handlers --reload
    """
    if drain and drain_all:
        raise click.UsageError("give --drain or --drain-all, not both", ctx=ctx)
    if reload and (drain or drain_all):
        raise click.UsageError("a worker that drains ends by itself; leave out --reload", ctx=ctx)
    settings = settings_of(
        ctx,
        queues=None if queues is None else _names(queues),
        slots=slots,
        executors=parse_pairs("--executor", executors) or None,
        worker_name=name,
        shutdown_grace_s=None if grace is None else grace.total_seconds(),
        max_jobs=max_jobs,
        max_rss_mib=max_rss_mib,
    )
    _check_slots(settings)
    if http is not None:
        check_installed()
    log_to_stderr(settings.log_level, settings.log_format)
    if reload:
        ctx.exit(_reload(settings))
    handlers = load_registry(target)
    log_the_rest()
    failpoints.arm_from(os.environ)
    until = Until.ALL_DONE if drain_all else Until.DRAINED if drain else Until.STOPPED
    debug = ctx.ensure_object(Invocation).debug
    ctx.exit(asyncio.run(_work(settings, handlers, target, until, http=http, debug=debug)))


def _reload(settings: Settings) -> int:
    """Run this very command as a child without `--reload`, and anew after changes."""
    from forge_jobs.cli.reload import DRAIN_S, run_reloading

    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    grace = ["--grace", f"{min(settings.runtime.shutdown_grace_s, DRAIN_S):g}"]
    return run_reloading([sys.executable, "-m", "forge_jobs", *arguments, *grace], Path.cwd(), marked=RELOADED)


def _follow_a_parent() -> None:
    """Stop with the process that starts this one anew, if there is one."""
    if os.environ.get(RELOADED):
        from forge_jobs.cli.reload import follow_parent

        follow_parent()


class Until(Enum):
    """When a worker ends by itself."""

    STOPPED = auto()
    DRAINED = auto()
    ALL_DONE = auto()


async def _work(
    settings: Settings,
    handlers: HandlerRegistry,
    target: str,
    until: Until,
    *,
    http: tuple[str, int] | None,
    debug: bool,
) -> int:
    """Run a worker to its end; its exit code."""
    threads = ThreadPoolExecutor(_threads_for(settings), thread_name_prefix="forge-handler")
    asyncio.get_running_loop().set_default_executor(threads)
    done: Report | None = None
    try:
        async with opened(settings, create=True, clock=_clock_of_a_test()) as storage:
            runtime = _runtime(storage, handlers, target, settings)
            _stop_on_signals(runtime, settings)
            _follow_a_parent()
            await runtime.start()
            try:
                with contextlib.nullcontext() if http is None else serving(http, runtime, storage) as server:
                    _introduce(runtime, storage, handlers, server)
                    if until is Until.STOPPED:
                        await runtime.run()
                    else:
                        await runtime.drain(all=until is Until.ALL_DONE)
                if runtime.env.health.fatal is not None:
                    raise runtime.env.health.fatal
            finally:
                done = runtime.report
        if done.abandoned:
            raise Failure(_would_not_end(done.abandoned, done.abandoned_returned))
    except Exception as error:
        code = report(error, debug=debug)
    else:
        code = 0
    threads.shutdown(wait=False, cancel_futures=True)
    if (done and done.abandoned) or not await _threads_ended():
        _exit_now(code)  # what would not end must not keep the process, nor does Python's own wait for it have a limit
    return code


def _would_not_end(handlers: int, returned: int) -> str:
    """What became of the jobs of handlers that would not end."""
    if handlers == 1:
        end = "its job was given back" if returned else "its run was recorded without it, after its timeout or a cancel"
        return f"1 handler would not end; {end}"
    if returned == handlers:
        end = "their jobs were given back"
    elif not returned:
        end = "their runs were recorded without them, after a timeout or a cancel"
    else:
        end = f"{returned} of their jobs were given back, the others recorded after a timeout or a cancel"
    return f"{handlers} handlers would not end; {end}"


def _clock_of_a_test() -> Clock | None:
    """The clock that a test shares with its workers, if there is one."""
    path = os.environ.get(SHARED_CLOCK)
    if not path:
        return None
    from forge_jobs.testing.clock import SharedClock

    return SharedClock(Path(path))


def _check_slots(settings: Settings) -> None:
    """Refuse more slots than a process may have, before a store is opened."""
    slots, queues = settings.runtime.slots, len(settings.queues)
    if slots * queues > limits.SLOTS_PER_PROCESS:
        raise Usage(
            f"slots {slots} for each of {queues} queues are more than {limits.SLOTS_PER_PROCESS} in one process"
        )


def _runtime(storage: Storage, handlers: HandlerRegistry, target: str, settings: Settings) -> QueueRuntime:
    return QueueRuntime(
        storage,
        handlers,
        settings.queues,
        slots=settings.runtime.slots if settings.is_given("slots") else None,
        name=settings.worker_name,
        config=settings.runtime,
        registry=target,
        executors=settings.executors_served,
    )


def _introduce(runtime: QueueRuntime, storage: Storage, handlers: HandlerRegistry, server: ProbeServer | None) -> None:
    if server is not None:
        log.info("http_listening host=%s port=%d", *server.address)
    kinds = ", ".join(handlers.kinds()) or "none, the registry is empty"
    with contextlib.suppress(OSError):  # nobody reads it, which is no reason not to work
        output.line(f"worker {runtime.host_id}: store {storage.url}; queues {', '.join(runtime.queues)}; kinds {kinds}")
        output.flush()


def _stop_on_signals(runtime: QueueRuntime, settings: Settings) -> None:
    """First: stop, and let handlers end. Second: end them. Third: end the process.

    Python's own signal handlers, not the event loop's: they run also while a handler blocks the loop. Such a one is
    the reason for the timer as well.
    """
    loop = asyncio.get_running_loop()
    received = 0

    def stop(number: int, frame: object) -> None:
        nonlocal received
        received += 1
        if received >= 3:
            _exit_now(FAILURE)
        hurry = received == 2
        limit = OVERRUN_S + (0 if hurry else settings.runtime.shutdown_grace_s)
        watch = threading.Timer(limit, _overrun)
        watch.daemon = True
        watch.start()
        loop.call_soon_threadsafe(lambda: runtime.request_stop(hurry=hurry))

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def _overrun() -> None:
    log.critical("shutdown_overrun: a handler blocks the event loop; its jobs are given back once they are stale")
    _exit_now(FAILURE)


def _exit_now(code: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            stream.flush()
    os._exit(code)


async def _threads_ended() -> bool:
    """Whether every thread that Python would wait for at exit ends within a moment."""
    loop = asyncio.get_running_loop()
    until = loop.time() + THREADS_GRACE_S
    main = threading.main_thread()
    while any(thread is not main and not thread.daemon for thread in threading.enumerate()):
        if loop.time() >= until:
            return False
        await asyncio.sleep(0.01)
    return True


def _threads_for(settings: Settings) -> int:
    """Enough for every slot to be in `asyncio.to_thread` at once; they are made when needed."""
    return min(settings.runtime.slots * len(settings.queues), limits.SLOTS_PER_PROCESS) + SPARE_THREADS


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("names no queue", param_hint="--queues")
    return names
