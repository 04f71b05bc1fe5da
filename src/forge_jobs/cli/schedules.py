"""`forge-jobs schedules`: jobs at set times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

import click
import rich_click

from forge_jobs import limits
from forge_jobs.cli import output
from forge_jobs.cli.enqueue import outcome_fields, read_payload
from forge_jobs.cli.errors import Usage
from forge_jobs.cli.lazy_group import Command, Group
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import (
    NONE,
    Duration,
    Instant,
    OrNone,
    global_options,
    json_option,
    list_options,
    yes_option,
)
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import actor, run, settings_of
from forge_jobs.clock import from_us
from forge_jobs.cron_expr import Fire, Fold, Gap, parse
from forge_jobs.names import check_name
from forge_jobs.payload import parse_json
from forge_jobs.redact import Secrets
from forge_jobs.runtime.routing import DefaultRouter
from forge_jobs.runtime.schedules import fires_after, is_led, trigger, undeclared, why_silent
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.schedule_check import check_declaration
from forge_jobs.storage.types.job import Enqueued, EnqueueOutcome
from forge_jobs.storage.types.schedule import Schedule, ScheduleChange, ScheduleDeclaration
from forge_jobs.view.schedule import fire_view, schedule_view

F = TypeVar("F", bound=Callable[..., Any])
TEXT_OR_NONE: Final = OrNone(click.STRING, "text")
NEXT_SHOWN: Final = 3
ODD: Final = {
    "gap": "the clock leaves its time out; it fires right after",
    "fold": "the clock shows its time twice",
}


class Around(NamedTuple):
    """What it takes to show a schedule."""

    now: datetime
    secrets: Secrets


def _schedule_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return check_name(value, "schedule")  # before a store is opened


def _settings_options(function: F) -> F:
    """The options of `add` and `set`."""
    for option in reversed(
        [
            rich_click.option("--payload", metavar="JSON", help="JSON, `-` for stdin, or `@file`; {} if not given."),
            rich_click.option("--queue", type=TEXT_OR_NONE, metavar="NAME|none", help="none leaves it to the router."),
            rich_click.option("--zone", metavar="ZONE", help="An IANA name such as Europe/Berlin; UTC if not given."),
            rich_click.option(
                "--gap",
                type=click.Choice([word.value for word in Gap]),
                help="A time that the clock leaves out: fires after it, or not.",
            ),
            rich_click.option(
                "--fold",
                type=click.Choice([word.value for word in Fold]),
                help="A time that comes twice: which of the two fires.",
            ),
            rich_click.option(
                "--misfire", metavar="latest|skip|all(N)", help="Which of the ticks fire that were missed."
            ),
            rich_click.option(
                "--misfire-grace",
                "misfire_grace_s",
                type=OrNone(Duration(), "duration"),
                metavar="DURATION|none",
                help="No tick fires that is later than this.",
            ),
            rich_click.option(
                "--skip-if-running/--no-skip-if-running",
                default=None,
                help="Whether a tick is skipped while the last job waits or runs.",
            ),
            rich_click.option(
                "--dedupe-key", type=TEXT_OR_NONE, metavar="KEY|none", help="The key of its jobs, if not its own."
            ),
            rich_click.option(
                "--jitter", "jitter_s", type=Duration(), help="A job is due up to so much after its tick."
            ),
            rich_click.option("--priority", type=int, help="-1000 to 1000, lower is claimed first."),
            rich_click.option(
                "--max-attempts",
                type=OrNone(click.INT, "count"),
                metavar="N|none",
                help="Runs before a job is dead; none leaves it to the handler.",
            ),
            rich_click.option(
                "--starts-at", type=OrNone(Instant(), "instant"), metavar="INSTANT|none", help="No tick before this."
            ),
            rich_click.option(
                "--ends-at", type=OrNone(Instant(), "instant"), metavar="INSTANT|none", help="No tick from this on."
            ),
        ]
    ):
        function = option(function)
    return function


@rich_click.group(
    cls=Group, lazy={"explain": ("forge_jobs.cli.explain:explain_schedule", "Say why a schedule does not fire.")}
)
def schedules() -> None:
    """List, add, tune, stop and try out schedules.

    \b
    Example:
      forge-jobs schedules list
      forge-jobs schedules add nightly report "0 3 * * *" --zone Europe/Berlin
    """


@schedules.command("list", cls=Command)
@list_options
@global_options
@click.pass_context
def list_(ctx: click.Context, as_json: bool, as_jsonl: bool) -> None:
    """List all schedules with their next tick, and why one does not fire.

    `edited` names settings that operators changed, which code leaves alone. `undeclared` are schedules that code
    declared once and no live worker declares any more; they go on firing until they are removed.

    \b
    Example:
      forge-jobs schedules list
      forge-jobs schedules list --json
    """

    async def work(storage: Storage, settings: Settings) -> tuple[list[Schedule], Secrets, set[str], bool]:
        found = await storage.schedules.list()
        processes = await storage.processes.list(settings.runtime.stale_after)
        return found, await storage.kinds.secrets(), undeclared(found, processes), await is_led(storage)

    found, secrets, lost, led = run(ctx, work)
    items = [
        {**schedule_view(one, secrets), "undeclared": one.name in lost, "why_silent": why_silent(one, led=led)}
        for one in found
    ]
    if not output.for_programs(items, as_json=as_json, as_jsonl=as_jsonl):
        output.table(
            [
                Column("schedule"),
                Column("state"),
                Column("kind"),
                Column("expression"),
                Column("zone"),
                Column("next"),
                Column("last fired"),
                Column("notes", wide=True),
            ],
            [
                (
                    one.name,
                    str(one.state),
                    one.settings.kind,
                    one.settings.expr,
                    one.settings.zone,
                    one.next_fire_at,
                    one.last_fired_at,
                    _notes(one, undeclared=one.name in lost, led=led),
                )
                for one in found
            ],
        )


@schedules.command("add", cls=Command)
@rich_click.argument("name", callback=_schedule_name)
@rich_click.argument("kind")
@rich_click.argument("expr")
@_settings_options
@rich_click.option("--disabled", is_flag=True, help="Add it without letting it fire yet.")
@json_option
@global_options
@click.pass_context
def add(ctx: click.Context, /, name: str, kind: str, expr: str, disabled: bool, as_json: bool, **options: Any) -> None:
    """Add a schedule that enqueues a job of KIND at the times of EXPR, and print its next three.

    EXPR has the fields minute, hour, day of month, month and day of week, or seconds before them, or is one of @hourly,
    @daily, @weekly, @monthly and @yearly.

    \b
    Example:
      forge-jobs schedules add nightly report "0 3 * * *" --zone Europe/Berlin
      forge-jobs schedules add poll fetch "*/5 * * * *" --payload '{"feed": 7}' --skip-if-running
    """
    declaration = ScheduleDeclaration(name, kind, expr, enabled=not disabled, **_given(options))
    check_declaration(declaration, settings_of(ctx).store.payload_max)  # before a store is made for it

    async def work(storage: Storage, settings: Settings) -> tuple[Schedule, Around]:
        return await storage.schedules.add(declaration, actor=actor()), await _around(storage)

    stored, around = run(ctx, work, create=True)
    _print_stored(stored, around, "added", as_json)


@schedules.command("set", cls=Command)
@rich_click.argument("name", callback=_schedule_name)
@rich_click.option("--expr", metavar="EXPR", help="When it fires.")
@rich_click.option("--kind", metavar="KIND", help="What it enqueues.")
@_settings_options
@json_option
@global_options
@click.pass_context
def set_(ctx: click.Context, /, name: str, as_json: bool, **options: Any) -> None:
    """Change settings of a schedule. What is not given stays; code does not overwrite what is.

    \b
    Example:
      forge-jobs schedules set nightly --expr "30 3 * * *"
      forge-jobs schedules set poll --jitter 30s --queue slow
    """
    given = _given(options)
    if not given:
        raise Usage("nothing to change: give an option such as --expr '0 4 * * *'")

    async def work(storage: Storage, settings: Settings) -> tuple[Schedule, Around]:
        stored = await storage.schedules.change(name, ScheduleChange(**given), actor=actor())
        return stored, await _around(storage)

    stored, around = run(ctx, work)
    _print_stored(stored, around, "changed", as_json)


@schedules.command("enable", cls=Command)
@rich_click.argument("name", callback=_schedule_name)
@json_option
@global_options
@click.pass_context
def enable(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a schedule fire from its next tick on. Ticks that it missed meanwhile are not made up for.

    \b
    Example:
      forge-jobs schedules enable nightly
    """

    async def work(storage: Storage, settings: Settings) -> tuple[Schedule, Around]:
        return await storage.schedules.enable(name, actor=actor()), await _around(storage)

    stored, around = run(ctx, work)
    _print_stored(stored, around, "enabled", as_json)


@schedules.command("disable", cls=Command)
@rich_click.argument("name", callback=_schedule_name)
@json_option
@global_options
@click.pass_context
def disable(ctx: click.Context, name: str, as_json: bool) -> None:
    """Stop a schedule until `enable`. Code does not turn it on again.

    \b
    Example:
      forge-jobs schedules disable nightly
    """

    async def work(storage: Storage, settings: Settings) -> tuple[Schedule, Around]:
        return await storage.schedules.disable(name, actor=actor()), await _around(storage)

    stored, around = run(ctx, work)
    if as_json:
        output.document(schedule_view(stored, around.secrets))
    else:
        output.line(f"{name} disabled")


@schedules.command("remove", cls=Command)
@rich_click.argument("name", callback=_schedule_name)
@yes_option
@json_option
@global_options
@click.pass_context
def remove(ctx: click.Context, name: str, yes: bool, as_json: bool) -> None:
    """Forget a schedule. Jobs that it made stay. Code that declares it brings it back: disable it instead.

    \b
    Example:
      forge-jobs schedules remove nightly --yes
    """
    if not yes:
        if not output.may_ask():
            raise Usage("schedules remove asks first, and nobody is there to answer", "give --yes")
        click.confirm(f"Remove the schedule {name}?", abort=True, err=True)

    async def work(storage: Storage, settings: Settings) -> tuple[bool, bool]:
        processes = await storage.processes.list(settings.runtime.stale_after)
        declared = any(row.live and name in row.info.schedules for row in processes)
        return await storage.schedules.remove(name, actor=actor()), declared

    removed, declared = run(ctx, work)
    if as_json:
        output.document({"name": name, "removed": removed})
    else:
        output.line(f"{name} removed" if removed else f"{name} was not there")
    if declared:
        output.say(f"{name} is declared by a live worker: it comes back when one starts; `disable` would keep it off")


@schedules.command("trigger", cls=Command)
@rich_click.argument("name", callback=_schedule_name)
@rich_click.option("--force", is_flag=True, help="Also while a job of the schedule waits or runs.")
@json_option
@global_options
@click.pass_context
def trigger_(ctx: click.Context, name: str, force: bool, as_json: bool) -> None:
    """Enqueue a job of a schedule now. Its ticks are not touched.

    \b
    Example:
      forge-jobs schedules trigger nightly
    """

    async def work(storage: Storage, settings: Settings) -> EnqueueOutcome:
        attempts = settings.runtime.max_attempts
        return await trigger(storage, DefaultRouter(), name, force=force, max_attempts=attempts, actor=actor())

    outcome = run(ctx, work)
    if as_json:
        output.document(outcome_fields(outcome))
    else:
        output.line(f"{'enqueued' if isinstance(outcome, Enqueued) else 'deduped'} {outcome.id}")


@schedules.command("preview", cls=Command)
@rich_click.argument("expr")
@rich_click.option("--zone", default="UTC", show_default=True, metavar="ZONE", help="An IANA name.")
@rich_click.option(
    "--gap", type=click.Choice([word.value for word in Gap]), default="shift", show_default=True, help="See `add`."
)
@rich_click.option(
    "--fold", type=click.Choice([word.value for word in Fold]), default="first", show_default=True, help="See `add`."
)
@rich_click.option("--from", "begin", type=Instant(), help="Fires after this instant; now if not given.")
@rich_click.option(
    "-n", "count", type=click.IntRange(1, limits.PREVIEW_FIRES), default=10, show_default=True, help="How many."
)
@list_options
@global_options
@click.pass_context
def preview(
    ctx: click.Context,
    expr: str,
    zone: str,
    gap: str,
    fold: str,
    begin: datetime | None,
    count: int,
    as_json: bool,
    as_jsonl: bool,
) -> None:
    """Print when EXPR fires, in UTC and in its zone. Needs no store.

    \b
    Example:
      forge-jobs schedules preview "30 2 * * *" --zone Europe/Berlin --from 2026-03-28T00:00:00Z -n 3
    """
    fires = parse(expr, zone, gap, fold).preview(begin or datetime.now(UTC), count)
    items = [fire_view(fire) for fire in fires]
    if not output.for_programs(items, as_json=as_json, as_jsonl=as_jsonl):
        _print_fires(fires)


@schedules.command("reset", cls=Command)
@rich_click.argument("name", callback=_schedule_name)
@json_option
@global_options
@click.pass_context
def reset(ctx: click.Context, name: str, as_json: bool) -> None:
    """Undo what operators changed: what code declared last applies again.

    \b
    Example:
      forge-jobs schedules reset nightly
    """

    async def work(storage: Storage, settings: Settings) -> tuple[Schedule, Around]:
        return await storage.schedules.reset_to_code(name, actor=actor()), await _around(storage)

    stored, around = run(ctx, work)
    _print_stored(stored, around, "reset to what code declares", as_json)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The settings that the command line names, as they are stored."""
    given = {name: _value(value) for name, value in options.items() if value is not None}
    if "payload" in given:
        given["payload"] = parse_json(read_payload(given["payload"]))
    return given


def _value(value: Any) -> Any:
    if value is NONE:
        return None
    return value.total_seconds() if isinstance(value, timedelta) else value


def _notes(schedule: Schedule, *, undeclared: bool, led: bool) -> str | None:
    silent = why_silent(schedule, led=led)
    notes = [silent] if silent and silent != schedule.state else []
    if schedule.differences:
        notes.append(f"edited: {', '.join(schedule.differences)}")
    if undeclared:
        notes.append("undeclared")
    return "; ".join(notes) or None


def _print_fires(fires: Sequence[Fire]) -> None:
    output.table(
        [Column("utc"), Column("local"), Column("notes", wide=True)],
        [
            (
                fire.at,
                f"{fire.local:%a %Y-%m-%d %H:%M:%S %z}",
                "" if fire.odd is None else f"{fire.odd}: {ODD[fire.odd]}",
            )
            for fire in fires
        ],
    )


async def _around(storage: Storage) -> Around:
    return Around(from_us(storage.clock.now_us()), await storage.kinds.secrets())


def _print_stored(schedule: Schedule, around: Around, what: str, as_json: bool) -> None:
    fires = fires_after(schedule.settings, around.now, NEXT_SHOWN) if schedule.settings.enabled else []
    if as_json:
        output.document({**schedule_view(schedule, around.secrets), "next_fires": [fire_view(fire) for fire in fires]})
        return
    output.line(f"{schedule.name} {what}")
    if fires:
        _print_fires(fires)
    else:
        output.say("it does not fire: " + ("it is disabled" if not schedule.settings.enabled else "it has ended"))
