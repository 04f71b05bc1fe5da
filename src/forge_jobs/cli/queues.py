"""`forge-jobs queues`: look at queues and turn their knobs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import Usage
from forge_jobs.cli.lazy_group import Command, Group
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import (
    NONE,
    Days,
    Duration,
    OrNone,
    global_options,
    json_option,
    list_options,
    yes_option,
)
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import actor, run
from forge_jobs.clock import from_us
from forge_jobs.names import check_name
from forge_jobs.runtime.shares import unassigned
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.queue import QueueChange, QueueCounts, QueueSettings
from forge_jobs.storage.types.share import Share
from forge_jobs.text import printable
from forge_jobs.view.queue import counts_view, queue_view, shares_view

COUNT_OR_NONE: Final = OrNone(click.INT, "count")
DAYS_OR_NONE: Final = OrNone(Days(), "days")


def _queue_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return check_name(value, "queue")  # before a store is opened


@rich_click.group(
    cls=Group, lazy={"explain": ("forge_jobs.cli.explain:explain_queue", "Say what holds a queue's jobs up.")}
)
def queues() -> None:
    """List, tune, pause, resume and delete queues.

    \b
    Example:
      forge-jobs queues list
      forge-jobs queues pause mail
    """


@queues.command("list", cls=Command)
@list_options
@global_options
@click.pass_context
def list_(ctx: click.Context, as_json: bool, as_jsonl: bool) -> None:
    """List all queues with their jobs by status, and the slots that live workers have open for them.

    A total of workers that they cannot take in full shows what is left unassigned.

    \b
    Example:
      forge-jobs queues list --json
    """

    async def work(
        storage: Storage, settings: Settings
    ) -> tuple[list[QueueSettings], dict[str, QueueCounts], list[Share], datetime]:
        now = from_us(storage.clock.now_us())
        return (
            await storage.queues.list(),
            await storage.queues.counts(),
            await _shares_of_the_living(storage, settings),
            now,
        )

    found, counts, shares, now = run(ctx, work)
    items = [
        {
            **queue_view(queue),
            "counts": counts_view(counts.get(queue.name, QueueCounts())),
            **shares_view(queue, shares),
        }
        for queue in found
    ]
    if as_json:
        output.document({"items": items, "next_cursor": None, "total": len(items)})
        return
    if as_jsonl:
        output.json_lines(items)
        return
    titles = ("ready", "scheduled", "running", "retrying", "dead", "done")
    output.table(
        [
            Column("queue"),
            Column("state"),
            *(Column(title, right=True) for title in titles),
            Column("oldest ready", right=True),
            Column("slots", right=True),
            Column("max workers", right=True),
        ],
        [
            (
                queue.name,
                _state(queue, now),
                n.ready,
                n.scheduled,
                n.in_progress,
                n.failed,
                n.dead,
                n.done,
                None if n.oldest_ready_at is None else now - n.oldest_ready_at,
                sum(share.open for share in shares if share.queue == queue.name),
                _max_workers(queue, shares),
            )
            for queue in found
            for n in [counts.get(queue.name, QueueCounts())]
        ],
    )


@queues.command("set", cls=Command)
@rich_click.argument("name", callback=_queue_name)
@rich_click.option(
    "--max-workers", type=COUNT_OR_NONE, metavar="N|none", help="Slots over all processes; 0 stops the queue."
)
@rich_click.option("--max-pending", type=COUNT_OR_NONE, metavar="N|none", help="Refuse jobs beyond this many waiting.")
@rich_click.option(
    "--retain-done", type=DAYS_OR_NONE, metavar="DAYS|none", help="Keep done jobs this long; none is for ever."
)
@rich_click.option(
    "--retain-dead", type=DAYS_OR_NONE, metavar="DAYS|none", help="Keep dead jobs this long; none is for ever."
)
@rich_click.option("--backoff/--no-backoff", "backoff_enabled", default=None, help="Whether retries wait at all.")
@rich_click.option("--backoff-base", type=Duration(), help="The wait before the first retry; it doubles each time.")
@rich_click.option("--backoff-cap", type=Duration(), help="The longest wait.")
@rich_click.option("--backoff-jitter", type=float, help="0 to 0.5: how far a wait varies.")
@rich_click.option("--cool-down/--no-cool-down", default=None, help="Whether a throttled job holds up the whole queue.")
@json_option
@global_options
@click.pass_context
def set_(ctx: click.Context, /, name: str, as_json: bool, **options: Any) -> None:
    """Change settings of a queue. What is not given stays; values beyond a limit are brought to it.

    \b
    Example:
      forge-jobs queues set mail --max-workers 4 --retain-done 3
      forge-jobs queues set mail --backoff-base 30s --backoff-cap 1h
    """
    wanted = {_FIELDS.get(option, option): _value(value) for option, value in options.items() if value is not None}
    if not wanted:
        raise Usage("nothing to change: give an option such as --max-workers 4")
    change = QueueChange(**wanted)
    change.given()  # refuses nonsense before a store is opened

    async def work(storage: Storage, settings: Settings) -> QueueSettings:
        return await storage.queues.change(name, change, actor=actor())

    stored = run(ctx, work)
    for key, value in wanted.items():
        kept = _stored(stored, key)
        if kept != value:
            output.say(f"{key} {output.cell(value)} is beyond its limit; stored as {output.cell(kept)}")
    _print_queue(stored, as_json)


@queues.command("pause", cls=Command)
@rich_click.argument("name", callback=_queue_name)
@rich_click.option("--no-signal", is_flag=True, help="Let running jobs go on without telling them.")
@json_option
@global_options
@click.pass_context
def pause(ctx: click.Context, name: str, no_signal: bool, as_json: bool) -> None:
    """Stop claims of a queue everywhere, until `resume`. Running jobs are told, and may stop early.

    \b
    Example:
      forge-jobs queues pause mail
      forge-jobs queues pause mail --no-signal
    """

    async def work(storage: Storage, settings: Settings) -> tuple[bool, QueueSettings]:
        changed = await storage.queues.pause(name, signal=not no_signal, actor=actor())
        return changed, await _get(storage, name)

    changed, stored = run(ctx, work)
    _print_change(stored, "paused" if changed else "already paused", changed, as_json)


@queues.command("resume", cls=Command)
@rich_click.argument("name", callback=_queue_name)
@json_option
@global_options
@click.pass_context
def resume(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a paused queue be claimed again.

    \b
    Example:
      forge-jobs queues resume mail
    """

    async def work(storage: Storage, settings: Settings) -> tuple[bool, QueueSettings]:
        changed = await storage.queues.resume(name, actor=actor())
        return changed, await _get(storage, name)

    changed, stored = run(ctx, work)
    _print_change(stored, "resumed" if changed else "was not paused", changed, as_json)


@queues.command("clear-cool-down", cls=Command)
@rich_click.argument("name", callback=_queue_name)
@json_option
@global_options
@click.pass_context
def clear_cool_down(ctx: click.Context, name: str, as_json: bool) -> None:
    """End the wait that a throttled job imposed on its queue.

    \b
    Example:
      forge-jobs queues clear-cool-down github
    """

    async def work(storage: Storage, settings: Settings) -> tuple[bool, QueueSettings]:
        before = await _get(storage, name)
        stored = await storage.queues.clear_cool_down(name, actor=actor())
        return before.throttled_until is not None or before.throttle_attempts > 0, stored

    changed, stored = run(ctx, work)
    _print_change(stored, "cool-down cleared" if changed else "was not cooling down", changed, as_json)


@queues.command("delete", cls=Command)
@rich_click.argument("name", callback=_queue_name)
@yes_option
@json_option
@global_options
@click.pass_context
def delete(ctx: click.Context, name: str, yes: bool, as_json: bool) -> None:
    """Remove a queue that has no jobs and that no live worker serves, with its settings.

    \b
    Example:
      forge-jobs queues delete old-imports --yes
    """
    if not yes:
        if not output.may_ask():
            raise Usage("queues delete asks first, and nobody is there to answer", "give --yes")
        click.confirm(f"Delete the queue {printable(name)} with its settings?", abort=True, err=True)

    async def work(storage: Storage, settings: Settings) -> None:
        await storage.queues.delete(name, actor=actor())

    run(ctx, work)
    if as_json:
        output.document({"name": name, "deleted": True})
    else:
        output.line(f"{name} deleted")


def _max_workers(queue: QueueSettings, shares: Sequence[Share]) -> str | int | None:
    left = unassigned(queue, shares)
    return f"{queue.max_workers} ({left} unassigned)" if left else queue.max_workers


async def _shares_of_the_living(storage: Storage, settings: Settings) -> list[Share]:
    processes = await storage.processes.list(settings.runtime.stale_after)
    live = {row.info.host_id for row in processes if row.live}
    return [share for share in await storage.shares.list() if share.host_id in live]


_FIELDS: Final = {
    "retain_done": "retain_done_days",
    "retain_dead": "retain_dead_days",
    "backoff_base": "backoff_base_s",
    "backoff_cap": "backoff_cap_s",
}


def _value(value: Any) -> Any:
    if value is NONE:
        return None
    return value.total_seconds() if isinstance(value, timedelta) else value


def _stored(queue: QueueSettings, key: str) -> Any:
    group, _, name = key.partition("_")
    return getattr(queue.backoff, name) if group == "backoff" else getattr(queue, key)


def _state(queue: QueueSettings, now: datetime) -> str:
    if queue.paused:
        return "paused"
    if queue.throttled_until is not None and queue.throttled_until > now:
        return f"cooling {output.age(queue.throttled_until - now)}"
    return "partly paused" if queue.paused_processes else "open"


async def _get(storage: Storage, name: str) -> QueueSettings:
    found = await storage.queues.get(name)
    if found is None:
        raise NotFound(f"there is no queue {name!r}")
    return found


def _print_change(queue: QueueSettings, what: str, changed: bool, as_json: bool) -> None:
    if as_json:
        output.document({**queue_view(queue), "changed": changed})
    else:
        output.line(f"{queue.name} {what}")


def _print_queue(queue: QueueSettings, as_json: bool) -> None:
    if as_json:
        output.document(queue_view(queue))
        return
    shown = queue_view(queue)
    backoff = shown.pop("backoff")
    output.fields([*shown.items(), *((f"backoff_{key}", value) for key, value in backoff.items())])
