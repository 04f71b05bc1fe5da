"""`forge-jobs jobs groups`: dead jobs by error."""

from __future__ import annotations

from typing import Any

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.job_filter import names
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import global_options, list_options
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run
from forge_jobs.storage.protocol import Storage
from forge_jobs.view.group import LOOKED_AT, groups_view


@rich_click.command("groups", cls=Command)
@rich_click.option("--queue", "queues", multiple=True, callback=names, help="Of this queue; several may be given.")
@list_options
@global_options
@click.pass_context
def groups(ctx: click.Context, queues: tuple[str, ...] | None, as_json: bool, as_jsonl: bool) -> None:
    """List dead jobs that ended alike, of the newest 10 000, the most numerous first.

    The mark names a group to `jobs retry`, `cancel` and `delete`.

    \b
    Example:
      forge-jobs jobs groups
      forge-jobs jobs retry --fingerprint 3f0c2a9be1d4 --per-second 5
    """

    async def work(storage: Storage, settings: Settings) -> list[dict[str, Any]]:
        return groups_view(await storage.jobs.deaths(queues, limit=LOOKED_AT), await storage.kinds.secrets())

    items = run(ctx, work)
    if not output.for_programs(items, as_json=as_json, as_jsonl=as_jsonl):
        output.table(
            [Column("mark"), Column("jobs", right=True), Column("kinds"), Column("last"), Column("error", wide=True)],
            [(one["fingerprint"], one["count"], ", ".join(one["kinds"]), one["last"], one["sample"]) for one in items],
        )
