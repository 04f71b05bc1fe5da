"""`forge-jobs kinds`: what jobs there are, and what code says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import Failure, Usage
from forge_jobs.cli.lazy_group import Command, Group
from forge_jobs.cli.load_registry import load_registry
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import global_options, json_option, list_options, yes_option
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import actor, run
from forge_jobs.names import check_name
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.view.kind import kind_detail, kind_views


def _kind_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return check_name(value, "kind")  # before a store is opened


@rich_click.group(cls=Group)
def kinds() -> None:
    """List kinds of jobs, show what code says of them, and take back what it hid.

    \b
    Example:
      forge-jobs kinds list
      forge-jobs kinds show thumbnail
    """


@kinds.command("list", cls=Command)
@list_options
@global_options
@click.pass_context
def list_(ctx: click.Context, as_json: bool, as_jsonl: bool) -> None:
    """List kinds: those that code declared, that live workers serve, and that there are jobs of.

    \b
    Example:
      forge-jobs kinds list
      forge-jobs kinds list --json
    """

    async def work(storage: Storage, settings: Settings) -> list[dict[str, Any]]:
        return await _views(storage, await storage.processes.list(settings.runtime.stale_after))

    items = run(ctx, work)
    if not output.for_programs(items, as_json=as_json, as_jsonl=as_jsonl):
        output.table(
            [
                Column("kind"),
                Column("executor"),
                Column("limit"),
                Column("waiting", right=True),
                Column("running", right=True),
                Column("dead", right=True),
                Column("workers", right=True),
                Column("description", brief=True),
            ],
            [
                (
                    one["kind"],
                    one["executor"],
                    "by payload" if one["paid_by_payload"] else one["rate_limit"],
                    one["waiting"],
                    one["in_progress"],
                    one["dead"],
                    one["workers_total"],
                    one["description"] if one["declared"] else "(no worker declared it)",
                )
                for one in items
            ],
        )


@kinds.command("show", cls=Command)
@rich_click.argument("kind", callback=_kind_name)
@json_option
@global_options
@click.pass_context
def show(ctx: click.Context, kind: str, as_json: bool) -> None:
    """Show one kind: its jobs, its workers, its options, and the JSON Schema of its payloads.

    Exit code 1 if no worker declared it and no job is of it.

    \b
    Example:
      forge-jobs kinds show thumbnail
      forge-jobs kinds show thumbnail --json
    """

    async def work(storage: Storage, settings: Settings) -> dict[str, Any]:
        return await _detail(storage, settings, kind)

    _print(run(ctx, work), as_json)


@kinds.command("reset", cls=Command)
@rich_click.argument("kind", callback=_kind_name)
@yes_option
@json_option
@global_options
@click.pass_context
def reset(ctx: click.Context, kind: str, yes: bool, as_json: bool) -> None:
    """Hide of the jobs of a kind only what its newest declaration says.

    What code ever declared as secret stays hidden until then, so that older code that runs beside newer code shows
    nothing.

    \b
    Example:
      forge-jobs kinds reset payment
    """
    if not yes:
        if not output.may_ask():
            raise Usage("kinds reset asks first, and nobody is there to answer", "give --yes")
        click.confirm(f"Show of jobs of {kind} all that its newest declaration does not hide?", abort=True, err=True)

    async def work(storage: Storage, settings: Settings) -> dict[str, Any]:
        await storage.kinds.reset_to_code(kind, actor=actor())
        return await _detail(storage, settings, kind)

    _print(run(ctx, work), as_json)


@kinds.command("declare", cls=Command)
@rich_click.argument("target", metavar="MODULE:REGISTRY")
@json_option
@global_options
@click.pass_context
def declare(ctx: click.Context, target: str, as_json: bool) -> None:
    """Tell the store what code says of its kinds, as workers do when they start.

    For a deploy in which jobs of a new kind may be enqueued before its first worker runs: nothing of them is hidden but
    the usual keys until its kind is declared.

    \b
    Example:
      forge-jobs kinds declare app:handlers
    """
    handlers = load_registry(target)

    async def work(storage: Storage, settings: Settings) -> list[str]:
        return await storage.kinds.declare(handlers.declarations(), host_id=actor().name)

    news = run(ctx, work, create=True)
    if as_json:
        output.document({"declared": handlers.kinds(), "changed": news})
    else:
        output.line(f"declared {len(handlers)} kinds; {', '.join(news) or 'nothing'} changed")


async def _views(storage: Storage, processes: Sequence[ProcessRow]) -> list[dict[str, Any]]:
    return kind_views(await storage.jobs.kinds(), await storage.kinds.list(), processes)


async def _detail(storage: Storage, settings: Settings, kind: str) -> dict[str, Any]:
    processes = await storage.processes.list(settings.runtime.stale_after)
    shown = next((one for one in await _views(storage, processes) if one["kind"] == kind), None)
    if shown is None:
        raise Failure(
            f"there is no kind {kind!r}: no worker declared it, and no job is of it",
            "`forge-jobs kinds list` shows those that there are",
        )
    return kind_detail(shown, await storage.kinds.get(kind), processes)


def _print(shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.document(shown)
        return
    declaration = shown["declaration"] or {}
    facts = {
        **{key: shown[key] for key in ("kind", "description", "served", "waiting", "in_progress", "dead")},
        "queues": ", ".join(one["queue"] for one in shown["queues"]),
        "workers": ", ".join(one["worker"] for one in shown["workers"]),
        **{key: value for key, value in declaration.items() if key not in {"kind", "description", "schema"}},
        "redact": ", ".join(shown["redact"]),
        "payload_view": shown["payload_view"],
        "declared_at": shown["declared_at"],
        "declared_by": shown["declared_by_label"] or shown["declared_by"],
    }
    output.fields((key, value) for key, value in facts.items() if value is not None and value != "")
    if shown["hides_more_than_code"]:
        output.say("it hides more than its newest declaration says; `forge-jobs kinds reset` takes that back")
    if declaration:
        output.heading("schema of its payloads")
        schema = declaration["schema"]
        output.raw("none, or too large to be kept\n" if schema is None else output.json_text(schema, indent=2) + "\n")
