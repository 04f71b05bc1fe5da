"""`forge-jobs bench`: what this machine does, against what bare SQL does on it."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path

import click
import rich_click
from rich.console import Console

from forge_jobs.bench.display import RunDisplay, described, shown
from forge_jobs.bench.measure import FULL_JOBS
from forge_jobs.bench.measures import NAMES
from forge_jobs.bench.run import Plan, Report, Result, run
from forge_jobs.cli import output
from forge_jobs.cli.errors import FAILURE
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.output import Column

COLUMNS = (
    Column("measure"),
    Column("value", right=True),
    Column("unit"),
    Column("spread", right=True),
    Column("limit", right=True),
    Column("ratio", right=True),
    Column("target", right=True),
    Column("met"),
)


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The names of measures in a list with commas."""
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    for name in names:
        if name not in NAMES:
            raise click.BadParameter(f"{name!r} is none of {', '.join(NAMES)}")
    return names


@rich_click.command(cls=Command)
@rich_click.option("--backend", type=click.Choice(["sqlite"]), default="sqlite", show_default=True, help="Which store.")
@rich_click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@rich_click.option(
    "--jobs",
    type=click.IntRange(1, 10_000_000),
    default=FULL_JOBS,
    show_default=True,
    help="Jobs of a drain; every other size is in proportion.",
)
@rich_click.option("--only", callback=_names, metavar="NAME,…", help="Only these measures.")
@rich_click.option(
    "--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Repetitions; the median counts."
)
@rich_click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where the scratch store is made; the place of temporary files by default.",
)
def bench(backend: str, as_json: bool, jobs: int, only: tuple[str, ...], repeat: int, directory: Path | None) -> None:
    """Measure throughput and latency on this machine, on a scratch store that is removed at the end.

    The limit beside a rate is what bare SQL reaches in the same run, in one thread, on the same tables, as durably.
    Progress goes to stderr. The exit code is 0 unless a measure failed; a number below its target is no failure.

    \b
    Example:
      forge-jobs bench
      forge-jobs bench --only drain,enqueue_bulk --jobs 10000 --json
    """
    ended: list[int] = []

    def end(number: int, _: object) -> None:  # in good order, so that the scratch store is removed
        ended.append(number)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    plan = Plan(jobs=jobs, repeat=repeat, only=only, directory=directory)
    with RunDisplay(Console(stderr=True)) as display:
        report = run(plan, display)
    if ended:  # it came where Python drops exceptions, as in a destructor
        sys.exit(128 + ended[0])
    if as_json:
        output.document(asdict(report))
    else:
        _print(report)
    if report.failed:
        sys.exit(FAILURE)


def _print(report: Report) -> None:
    for text in described(report.environment):
        output.line(text)
    output.line()
    output.table(COLUMNS, [_row(result) for result in report.results])


def _row(result: Result) -> tuple[str | None, ...]:
    if result.value is None:
        return result.name, "failed", result.unit, None, None, None, result.target, None
    return (
        result.name,
        shown(result.value),
        result.unit,
        f"{shown(min(result.samples))} … {shown(max(result.samples))}",
        None if result.limit is None else shown(result.limit),
        None if result.ratio is None else f"{result.ratio:.2f}",
        result.target,
        None if result.met is None else "✓" if result.met else "✗",
    )
