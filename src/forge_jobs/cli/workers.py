"""`forge-jobs workers`: who works, and what nobody works on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import global_options, list_options
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run
from forge_jobs.clock import from_us
from forge_jobs.runtime.unserved import Unserved, find_unserved
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.view.process import Shares, open_slots, process_view, unserved_in_words


@rich_click.command("workers", cls=Command)
@list_options
@global_options
@click.pass_context
def workers(ctx: click.Context, as_json: bool, as_jsonl: bool) -> None:
    """List worker processes, and below them the queues and kinds that none of them serves.

    Beside each queue stand the slots open for it, and after a slash the process's share of the queue's total.

    \b
    Example:
      forge-jobs workers
      forge-jobs workers --json
    """

    async def work(storage: Storage, settings: Settings) -> tuple[list[ProcessRow], Shares, list[Unserved], datetime]:
        processes = await storage.processes.list(settings.runtime.stale_after)
        shares = {(share.queue, share.host_id): share for share in await storage.shares.list()}
        return processes, shares, await find_unserved(storage, processes), from_us(storage.clock.now_us())

    processes, shares, unserved, now = run(ctx, work)
    items = [process_view(row, shares) for row in processes]
    if as_json:
        output.document(
            {
                "items": items,
                "next_cursor": None,
                "total": len(items),
                "unserved": [dataclasses.asdict(one) for one in unserved],
            }
        )
        return
    if as_jsonl:
        output.json_lines(items)
    else:
        _print(processes, shares, now)
    for one in unserved:
        output.say(f"unserved: {unserved_in_words(one)}")


def _slots_and_share(row: ProcessRow, queue: str, shares: Shares) -> str:
    share = shares.get((queue, row.info.host_id))
    slots = open_slots(row, queue, shares)
    return f"{queue} {slots}" if share is None or share.share is None else f"{queue} {slots}/{share.share}"


def _print(processes: Sequence[ProcessRow], shares: Shares, now: datetime) -> None:
    output.table(
        [
            Column("worker"),
            Column("host"),
            Column("pid", right=True),
            Column("version"),
            Column("state"),
            Column("queues and slots", wide=True),
            Column("running", right=True),
            Column("beat", right=True),
            Column("up", right=True),
        ],
        [
            (
                row.info.label or row.info.host_id,
                row.info.host_name,
                row.info.pid,
                row.info.version,
                str(row.info.state) if row.live else "gone",
                [_slots_and_share(row, queue, shares) for queue in row.info.queues],
                len(row.info.running),
                max(now - row.heartbeat_at, now - now),
                now - row.started_at,
            )
            for row in processes
        ],
    )
