"""`forge-jobs jobs export`: jobs as JSON lines or CSV, secrets hidden."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any, Final, Protocol

import click
import rich_click

from forge_jobs import limits
from forge_jobs.cli import output
from forge_jobs.cli.job_filter import filter_options
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.parameters import global_options
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run
from forge_jobs.redact import Secrets
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import JobFilter, JobRow
from forge_jobs.text import printable
from forge_jobs.view import job as job_view

PAGE: Final = limits.PAGE
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet read a cell as a formula."""


@rich_click.command("export", cls=Command)
@filter_options
@rich_click.option("--format", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True, help="How.")
@rich_click.option("--limit", type=click.IntRange(1), help="At most this many; all by default.")
@global_options
@click.pass_context
def export(ctx: click.Context, chosen: JobFilter, format: str, limit: int | None) -> None:
    """Write jobs to stdout, newest enqueued first: all of them, or those of a filter.

    In CSV, text that a spreadsheet would take for a formula starts with an apostrophe.

    \b
    Example:
      forge-jobs jobs export --status dead > dead.jsonl
      forge-jobs jobs export --queue mail --since 7d --format csv > mail.csv
    """

    async def work(storage: Storage, settings: Settings) -> int:
        writer: Writer = CsvWriter() if format == "csv" else JsonlWriter()
        secrets = await storage.kinds.secrets()
        written, cursor = 0, None
        while limit is None or written < limit:
            size = PAGE if limit is None else min(PAGE, limit - written)
            page = await storage.jobs.list_jobs(chosen, limit=size, cursor=cursor, with_total=False)
            for job in page.items:
                writer.write(row(job, secrets))
            written += len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
        return written

    output.say(f"{run(ctx, work)} jobs written")


def row(job: JobRow, secrets: Secrets) -> dict[str, Any]:
    """A job of a list, with its whole payload in place of the preview."""
    shown = job_view.job_row(job, secrets)
    del shown["payload_preview"]
    return {**shown, "payload": job_view.payload(job, secrets)}


class Writer(Protocol):
    """Writes rows to stdout."""

    def write(self, row: dict[str, Any]) -> None: ...


class JsonlWriter:
    """One JSON document a line."""

    def write(self, row: dict[str, Any]) -> None:
        output.json_lines([row])


class CsvWriter:
    """RFC 4180, a header first."""

    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout)
        self._headed = False

    def write(self, row: dict[str, Any]) -> None:
        if not self._headed:
            self._writer.writerow(row)
            self._headed = True
        self._writer.writerow(list(_cells(row)))


def _cells(row: dict[str, Any]) -> Iterator[Any]:
    for key, value in row.items():
        if key == "payload":
            value = json.dumps(value, ensure_ascii=False)
        elif key == "tags":
            value = " ".join(value)
        elif hasattr(value, "isoformat"):
            value = output.instant(value)
        yield safe_cell(value) if isinstance(value, str) else value


def safe_cell(text: str) -> str:
    """Text that a spreadsheet takes for text, in which characters that do not show are escapes."""
    text = printable(text, newline=True)
    return f"'{text}" if text.startswith(FORMULA) else text
