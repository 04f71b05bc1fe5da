"""`forge-jobs demo`: the queue at work on real input, with a crash in the middle and a check at the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
import rich_click
from rich.console import Console

from forge_jobs.cli.errors import FAILURE, Failure
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.output import document, say
from forge_jobs.cli.parameters import json_option
from forge_jobs.config import StoreConfig
from forge_jobs.demo.conductor import conduct
from forge_jobs.demo.display import display_for
from forge_jobs.demo.facts import Facts
from forge_jobs.demo.fleet import DemoError
from forge_jobs.demo.plan import MIN_ITEMS, Plan
from forge_jobs.demo.report import print_report, report_document
from forge_jobs.demo.verdict import judge
from forge_jobs.demo.workspace import workspace
from forge_jobs.storage.open import Backend, backend_of, drop_store

PIPE_WIDTH: Final = 120
MOST_ITEMS: Final = 1_000
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(Exception):
    """The demo was told to stop by a signal, and has."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class _Console(Console):
    """Leaves it to the program what a closed pipe means."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@rich_click.command(cls=Command)
@rich_click.option(
    "--items",
    type=click.IntRange(MIN_ITEMS, MOST_ITEMS),
    default=Plan().items,
    show_default=True,
    help="How many source files to work through, if there are as many.",
)
@rich_click.option("--seed", type=int, default=Plan().seed, show_default=True, help="Draws the files and their fates.")
@rich_click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Leave the databases and logs in this new or empty folder, to look at them.",
)
@rich_click.option(
    "--server",
    metavar="URL",
    help="Work on this PostgreSQL server, with three workers, in a schema of its own that is dropped at the end.",
)
@rich_click.option("--stay", is_flag=True, help="Let workers and dashboard run on after the check, until Ctrl-C.")
@json_option
def demo(items: int, seed: int, keep: Path | None, server: str | None, stay: bool, as_json: bool) -> int:
    """Show the queue at work, and prove that it lost nothing.

    A process serves the source files of Python's standard library over HTTP: with a budget, some files gone, some
    flaky, some slow. Workers list, fetch and count them; one is killed, one is stopped and started again. A check
    of the upstream's log, the results and the queue's rows says whether every file ended exactly once as it should:
    the exit code is that check. It takes about half a minute, in a temporary folder that stays only if the check fails.
    The dashboard shows it all meanwhile, at the address that is printed, if `forge-jobs[server]` is installed.

    \b
    Example:
      forge-jobs demo --items 200 --keep /tmp/demo
    """
    if keep is not None:
        _prepare(keep)
    console = _Console(stderr=as_json, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    plan = Plan(items=items, seed=seed, server=_server(server))

    def tell(facts: Facts) -> None:
        checks = judge(facts)
        if as_json:
            document(report_document(facts, checks))
        else:
            print_report(console, facts, checks)

    with workspace(keep) as place:
        try:
            facts = asyncio.run(_until_stopped(plan, console, place.folder, tell, stay=stay))
        except DemoError as error:
            for line in error.log.splitlines():
                say(f"  {line}")
            raise Failure(str(error)) from error
        except _Stopped as stopped:
            say("stopped; the processes are gone" + ("" if keep else ", and so is what they wrote"))
            return 128 + stopped.signal
        passed = all(check.holds for check in judge(facts))
        place.stays = place.stays or not passed  # what a failed check found is worth a look
        if place.stays:
            say(f"databases and logs are in {place.folder}")
        if server is not None and keep is None and passed:
            asyncio.run(drop_store(server, config=StoreConfig(schema=plan.schema)))
        elif server is not None:
            say(f"the jobs are in the schema {plan.schema}")
    return 0 if passed else FAILURE


def _server(url: str | None) -> str | None:
    """The URL, if it is a server's."""
    if url is not None and backend_of(url) is not Backend.POSTGRESQL:
        raise click.BadParameter("give a URL of the form postgresql://user@host/database", param_hint="--server")
    return url


def _prepare(keep: Path) -> None:
    """Make the folder, or see that it is empty."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
        used = any(keep.iterdir())
    except OSError as error:
        raise click.BadParameter(f"{str(keep)!r} cannot be used: {error.strerror}", param_hint="--keep") from error
    if used:
        raise click.BadParameter(f"{str(keep)!r} is not empty; give a new or empty folder", param_hint="--keep")


async def _until_stopped(
    plan: Plan, console: Console, folder: Path, tell: Callable[[Facts], None], *, stay: bool
) -> Facts:
    """The demo's facts, which were told; the first SIGINT, SIGTERM or SIGHUP cancels it, so that it cleans up behind
    itself. With `stay` that is how it ends."""
    task = asyncio.current_task()
    assert task is not None
    received: list[int] = []
    told: list[Facts] = []
    shown = contextlib.ExitStack()

    async def look(facts: Facts, dashboard: str | None) -> None:
        shown.close()
        tell(facts)
        told.append(facts)
        say(f"everything runs on{f', and the dashboard is {dashboard}' if dashboard else ''}; Ctrl-C ends it")
        await asyncio.Event().wait()

    def stop(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            task.cancel()

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        with shown:
            display = display_for(console)
            shown.enter_context(display)
            facts = await conduct(plan, display, folder, then=look if stay else None)
        tell(facts)
        return facts
    except asyncio.CancelledError:
        if not received:
            raise
        if told:
            return told[0]
        raise _Stopped(received[0]) from None
