"""`forge-jobs bench`: what this machine does, against what bare SQL does on it."""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import rich_click
from rich.console import Console

from forge_jobs.bench.display import RunDisplay, described, shown
from forge_jobs.bench.measure import FULL_JOBS
from forge_jobs.bench.measures import names_on
from forge_jobs.bench.run import Plan, Report, Result, run
from forge_jobs.cli import output
from forge_jobs.cli.errors import FAILURE
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import Invocation, global_options
from forge_jobs.cli.store import settings_of
from forge_jobs.storage.open import Backend, backend_of

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


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BACKENDS = {"sqlite": Backend.SQLITE, "postgres": Backend.POSTGRESQL}


@rich_click.command(cls=Command)
@rich_click.option(
    "--backend",
    type=click.Choice(list(BACKENDS)),
    default="sqlite",
    show_default=True,
    help="Which store. On PostgreSQL --database says where, if it names a server; else one is started and thrown away.",
)
@rich_click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@rich_click.option(
    "--jobs",
    type=click.IntRange(1, 10_000_000),
    default=FULL_JOBS,
    show_default=True,
    help="Jobs of a drain; every other size is in proportion.",
)
@rich_click.option("--only", default="", metavar="NAME,…", help="Only these measures.")
@rich_click.option(
    "--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Repetitions; the median counts."
)
@rich_click.option(
    "--dir",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Where the scratch files of SQLite are made; the place of temporary files by default.",
)
@global_options
@click.pass_context
def bench(
    ctx: click.Context, backend: str, as_json: bool, jobs: int, only: str, repeat: int, directory: Path | None
) -> None:
    """Measure throughput and latency on this machine, on a scratch store that is removed at the end.

    On PostgreSQL the scratch store is a schema forge_bench_…; nothing else in the database is touched. The limit beside
    a rate is what bare SQL reaches in the same run, in one thread, on the same tables, as durably.
    Progress goes to stderr. The exit code is 0 unless a measure failed; a number below its target is no failure.

    \b
    Example:
      forge-jobs bench
      forge-jobs bench --only drain,enqueue_bulk --jobs 10000 --json
      forge-jobs bench --backend postgres
    """
    chosen = BACKENDS[backend]
    plan = Plan(
        backend=chosen,
        jobs=jobs,
        repeat=repeat,
        only=_names(chosen, only),
        directory=_directory(chosen, directory),
        database=_database(ctx, chosen),
    )
    with _Ending() as ending, RunDisplay(Console(stderr=True)) as display:
        report = run(plan, display, ending.check)
    ending.check()
    if as_json:
        output.document(asdict(report))
    else:
        _print(report)
    if report.failed:
        sys.exit(FAILURE)


class _Ending:
    """A signal ends the run in good order, so that the scratch store is removed. Further ones do not disturb that."""

    def __init__(self) -> None:
        self._number: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        if self._number is None:
            self._number = number
            self.check()

    def check(self) -> None:
        """End now if a signal came. It may have come where Python drops exceptions, as in a destructor."""
        if self._number is not None:
            sys.exit(128 + self._number)


def _names(backend: Backend, text: str) -> tuple[str, ...]:
    """The names of measures in a list with commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    known = names_on(backend)
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--only")
    return names


def _directory(backend: Backend, directory: Path | None) -> Path | None:
    if directory is not None and backend is not Backend.SQLITE:
        raise click.BadParameter("is for files of SQLite; a server keeps its data where it does", param_hint="--dir")
    return directory


def _database(ctx: click.Context, backend: Backend) -> str | None:
    """The server's database, if one is configured; a store that is given and would not be used is a mistake."""
    given = ctx.ensure_object(Invocation).database
    if given is not None and (backend is Backend.SQLITE or backend_of(given) is not backend):
        raise click.BadParameter(
            "give postgresql://user@host/database with --backend postgres; scratch files of SQLite are made in --dir",
            param_hint="--database",
        )
    if backend is Backend.SQLITE:
        return None
    url = settings_of(ctx).database
    return url if backend_of(url) is backend else None


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
