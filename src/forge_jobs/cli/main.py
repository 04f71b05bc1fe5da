"""The program `forge-jobs`: its commands, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click
import rich_click

from forge_jobs.cli.lazy_group import ClosedPipe, Group
from forge_jobs.cli.output import line, prepare_streams
from forge_jobs.cli.parameters import Invocation, global_options

COMMANDS: Final = {
    "worker": ("forge_jobs.cli.worker:worker", "Run jobs: a worker process."),
    "enqueue": ("forge_jobs.cli.enqueue:enqueue", "Add jobs."),
    "jobs": ("forge_jobs.cli.jobs:jobs", "List, show, explain, retry, cancel, delete, follow and export jobs."),
    "queues": ("forge_jobs.cli.queues:queues", "List, tune, pause, resume and delete queues."),
    "limits": ("forge_jobs.cli.limits:limits", "List, add, tune, drain and remove rate limits."),
    "schedules": ("forge_jobs.cli.schedules:schedules", "List, add, tune, stop and try out schedules."),
    "workers": ("forge_jobs.cli.workers:workers", "List worker processes, and what nobody serves."),
    "serve": ("forge_jobs.cli.serve:serve", "Serve the HTTP API and the dashboard."),
    "db": ("forge_jobs.cli.db:db", "Create, migrate, inspect, back up and drop the store."),
    "top": ("forge_jobs.cli.top:top", "Watch queues, workers and jobs in the terminal."),
    "doctor": ("forge_jobs.cli.doctor:doctor", "Check the store, the settings and the workers."),
    "demo": ("forge_jobs.cli.demo:demo", "See it work on sample jobs."),
    "bench": ("forge_jobs.cli.bench:bench", "Measure throughput and latency on this machine."),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and leave it with its exit code."""
    prepare_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code of one command line."""
    invocation = Invocation(debug="--debug" in arguments)
    try:
        code = program.main(list(arguments), prog_name="forge-jobs", obj=invocation, standalone_mode=False)
        sys.stdout.flush()
    except (ClosedPipe, BrokenPipeError):
        return _closed_pipe()
    except BaseException as error:
        if isinstance(error, (SystemExit, GeneratorExit)):
            raise
        from forge_jobs.cli.errors import report

        try:
            sys.stdout.flush()
        except BrokenPipeError:
            return _closed_pipe()
        return report(error, debug=invocation.debug)
    return code if isinstance(code, int) else 0


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from forge_jobs import __version__

        line(f"forge-jobs {__version__}")
        ctx.exit()


@rich_click.group(cls=Group, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@global_options
@rich_click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def program() -> None:
    """A durable background job queue.

    The store is a SQLite file or a PostgreSQL database: --database, else FORGE_DATABASE_URL, else `database` in
    forge.toml or in [tool.forge-jobs] of pyproject.toml, else sqlite:///forge-jobs.db.

    \b
    Example:
      forge-jobs enqueue mail '{"to": "a@example.org"}'
      forge-jobs worker app:handlers
      forge-jobs jobs list --status dead
    """


def _closed_pipe() -> int:
    """Whoever read our output has gone: leave without a word, also from the flush at exit."""
    from forge_jobs.cli.errors import CLOSED_PIPE

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return CLOSED_PIPE
