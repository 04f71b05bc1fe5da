"""`forge-jobs workers`: who works, and what nobody works on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

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
from forge_jobs.storage.types.share import Share

Shares = Mapping[tuple[str, str], Share]
"""By queue and host id."""


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
    items = [view(row, shares) for row in processes]
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
        output.say(f"unserved: {describe(one)}")


def describe(one: Unserved) -> str:
    """One thing that nobody serves, in words."""
    jobs = "1 job waits" if one.jobs == 1 else f"{one.jobs} jobs wait"
    if one.kind is None:
        return f"queue {one.queue} has no live worker; {jobs}"
    return f"kind {one.kind} of queue {one.queue} has no handler in any live worker; {jobs}"


def view(row: ProcessRow, shares: Shares) -> dict[str, Any]:
    """A worker process for programs. `shares` has the queues of which it was given a part of the total."""
    info = row.info
    own = {queue: shares.get((queue, info.host_id)) for queue in info.queues}
    return {
        "host_id": info.host_id,
        "worker": info.label or info.host_id,
        "label": info.label,
        "host_name": info.host_name,
        "pid": info.pid,
        "version": info.version,
        "state": str(info.state) if row.live else "gone",
        "live": row.live,
        "queues": list(info.queues),
        "kinds": list(info.kinds),
        "slots": {queue: _open_slots(row, queue, shares) for queue in info.queues},
        "shares": {queue: share.share for queue, share in own.items() if share and share.share is not None},
        "offered": info.offered,
        "running": info.running,
        "loop_lag_ms": info.loop_lag_ms,
        "abandoned_threads": info.abandoned_threads,
        "started_at": row.started_at,
        "heartbeat_at": row.heartbeat_at,
    }


def _open_slots(row: ProcessRow, queue: str, shares: Shares) -> int:
    """The slots that a process has open, as it told the store last."""
    share = shares.get((queue, row.info.host_id))
    return row.info.slots.get(queue, 0) if share is None else share.open


def _slots_and_share(row: ProcessRow, queue: str, shares: Shares) -> str:
    share = shares.get((queue, row.info.host_id))
    slots = _open_slots(row, queue, shares)
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
