"""`forge-jobs jobs explain`, `queues explain` and `schedules explain`: why something does not run, and what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import FAILURE
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import global_options, json_option
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run
from forge_jobs.clock import from_us
from forge_jobs.ids import JobId
from forge_jobs.names import check_name
from forge_jobs.redact import redact_text
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.blocker import Blocker, BlockerCode
from forge_jobs.view.blocker import blocker_view

UNKNOWN: Final = frozenset({BlockerCode.UNKNOWN_ID, BlockerCode.UNKNOWN_QUEUE, BlockerCode.UNKNOWN_SCHEDULE})


def _command(argument: str, noun: str | None = None) -> Callable[[Callable[..., None]], click.Command]:
    """A command `explain` of one argument: a name of what `noun` says, or an id."""

    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        return value if noun is None else check_name(value, noun)

    def declare(function: Callable[..., None]) -> click.Command:
        function = json_option(global_options(click.pass_context(function)))
        function = rich_click.argument(argument, callback=check)(function)
        return rich_click.command("explain", cls=Command)(function)

    return declare


@_command("id")
def explain_job(ctx: click.Context, id: str, as_json: bool) -> None:
    """Say why a job does not run at the moment, the most final reason first, and what to do.

    `ready` says that nothing is in its way. Nothing is changed. Exit code 1 if there is no such job.

    \b
    Example:
      forge-jobs jobs explain 01JH3V7M8Q2X4N5P6R7S8T9VWX
      forge-jobs jobs explain 01JH3V7M8Q2X4N5P6R7S8T9VWX --json
    """

    async def ask(storage: Storage, settings: Settings) -> Sequence[Blocker]:
        return await storage.jobs.explain(JobId(id), stale_after=settings.runtime.stale_after)

    _explain(ctx, {"job_id": id}, ask, as_json=as_json)


@_command("name", "queue")
def explain_queue(ctx: click.Context, name: str, as_json: bool) -> None:
    """Say what stands in the way of a queue's jobs, the most final reason first, and what to do.

    Nothing is changed. Exit code 1 if there is no such queue.

    \b
    Example:
      forge-jobs queues explain mail
    """

    async def ask(storage: Storage, settings: Settings) -> Sequence[Blocker]:
        return await storage.queues.explain(name, stale_after=settings.runtime.stale_after)

    _explain(ctx, {"queue": name}, ask, as_json=as_json)


@_command("name", "schedule")
def explain_schedule(ctx: click.Context, name: str, as_json: bool) -> None:
    """Say why a schedule does not fire, the most final reason first, and what to do.

    Nothing is changed. Exit code 1 if there is no such schedule.

    \b
    Example:
      forge-jobs schedules explain nightly
    """

    async def ask(storage: Storage, settings: Settings) -> Sequence[Blocker]:
        return await storage.schedules.explain(name, stale_after=settings.runtime.stale_after)

    _explain(ctx, {"schedule": name}, ask, as_json=as_json)


def _explain(
    ctx: click.Context,
    subject: dict[str, str],
    ask: Callable[[Storage, Settings], Awaitable[Sequence[Blocker]]],
    *,
    as_json: bool,
) -> None:
    """Print the answer; exit code 1 if there is no such thing."""

    async def work(storage: Storage, settings: Settings) -> tuple[Sequence[Blocker], datetime]:
        return await ask(storage, settings), from_us(storage.clock.now_us())

    found, now = run(ctx, work)
    if as_json:
        output.document({**subject, "blockers": [blocker_view(one) for one in found]})
    else:
        _print(found, now)
    if any(one.code in UNKNOWN for one in found):
        ctx.exit(FAILURE)


def _print(found: Sequence[Blocker], now: datetime) -> None:
    output.table(
        [Column("blocker"), Column("since"), Column("until"), Column("says", wide=True)],
        [(str(one.code), _ago(one.since, now), _ahead(one.until, now), redact_text(one.text)) for one in found],
    )
    remedies = [(str(one.code), one.remedy) for one in found if one.remedy]
    if remedies:
        output.heading("what to do")
        output.fields(remedies)


def _ago(since: datetime | None, now: datetime) -> str:
    return "-" if since is None else f"{output.age(max(now - since, now - now))} ago"


def _ahead(until: datetime | None, now: datetime) -> str:
    return "-" if until is None else f"in {output.age(max(until - now, now - now))}"
