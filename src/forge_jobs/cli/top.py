"""`forge-jobs top`: a live view in the terminal."""

from __future__ import annotations

import importlib.util
import sys

import click
import rich_click

from forge_jobs.cli.errors import Usage
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.parameters import global_options
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import actor, run
from forge_jobs.storage.protocol import Storage


@rich_click.command("top", cls=Command)
@rich_click.option(
    "--every", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="Seconds between two looks."
)
@global_options
@click.pass_context
def top(ctx: click.Context, every: float) -> None:
    """Watch queues, workers and jobs in the terminal. No server is needed.

    Keys: q quits, p pauses or resumes the selected queue, s sorts the table that has the focus, r retries the selected
    failed or dead job, / filters, Tab goes to the next table.

    \b
    Example:
      forge-jobs top
      forge-jobs top --every 5
    """
    if importlib.util.find_spec("textual") is None:
        raise Usage("top needs textual: pip install 'forge-jobs[tui]'")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Usage("top needs a terminal; `forge-jobs queues list` and `forge-jobs workers` work in a pipe")

    async def work(storage: Storage, settings: Settings) -> None:
        from forge_jobs.top.app import Top

        view = Top(storage, actor=actor(), stale_after=settings.runtime.stale_after, every_s=every)
        await view.run_async()

    run(ctx, work)
