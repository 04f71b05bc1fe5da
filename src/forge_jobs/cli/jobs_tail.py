"""`forge-jobs jobs tail`: events as they happen."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import Final

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.job_filter import names
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.parameters import global_options
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run
from forge_jobs.clock import from_us
from forge_jobs.ids import parse_id
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.view import job as job_view
from forge_jobs.view.follow import Follower

POLL_S: Final = 0.5


@rich_click.command("tail", cls=Command)
@rich_click.option("--queue", "queues", multiple=True, callback=names, help="Of this queue; several may be given.")
@rich_click.option("--kind", "kinds", multiple=True, callback=names, help="Of this kind; several may be given.")
@rich_click.option("--id", "ids", multiple=True, metavar="ID", help="Of this job; several may be given.")
@rich_click.option("--json", "--jsonl", "as_json", is_flag=True, help="Print one JSON document a line.")
@global_options
@click.pass_context
def tail(
    ctx: click.Context,
    queues: tuple[str, ...] | None,
    kinds: tuple[str, ...] | None,
    ids: tuple[str, ...],
    as_json: bool,
) -> None:
    """Follow events as they happen, until Ctrl-C. Above a thousand a second they come as counts.

    \b
    Example:
      forge-jobs jobs tail --queue mail
      forge-jobs jobs tail --id 01JH3V7M8Q2X4N5P6R7S8T9VWX --jsonl
    """
    job_ids = {parse_id(id) for id in ids}

    def fits(event: JobEvent) -> bool:
        return (
            (queues is None or event.queue in queues)
            and (kinds is None or event.kind in kinds)
            and (not job_ids or event.job_id in job_ids)
        )

    async def work(storage: Storage, settings: Settings) -> None:
        output.say(f"following {storage.url}; Ctrl-C ends it")
        follower = Follower(storage, from_us(storage.clock.now_us()))
        while True:
            for event in await follower.new():
                if fits(event):
                    _print(event, as_json)
            await asyncio.sleep(POLL_S)

    try:
        run(ctx, work)
    except KeyboardInterrupt:  # how it is meant to end
        pass


def _print(event: JobEvent, as_json: bool) -> None:
    if as_json:
        output.json_lines([job_view.event(event)])
    else:
        at = from_us(event.at_us).astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
        what = event.job_id or f"{event.count} jobs"
        parts = [f"{at}Z", event.type.ljust(10), what, event.kind, f"queue={event.queue}"]
        if event.attempt is not None:
            parts.append(f"attempt={event.attempt}")
        if event.cause is not None:
            parts.append(f"cause={event.cause}")
        if event.duration_us is not None:
            parts.append(f"took={job_view.duration(event)}")
        output.line("  ".join(parts))
    output.flush()
