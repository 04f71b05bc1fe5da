"""`forge-jobs limits`: look at rate limits and tune them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import Usage
from forge_jobs.cli.lazy_group import Command, Group
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import Duration, global_options, json_option, list_options, yes_option
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import actor, run
from forge_jobs.clock import from_us
from forge_jobs.names import check_name
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.rate_limit import RateLimit, RateLimitDeclaration, check_capacity, check_refill
from forge_jobs.text import printable
from forge_jobs.view.kind import users_of
from forge_jobs.view.rate_limit import rate_limit_view


class Rate(click.ParamType[float]):
    """Tokens per second: `0.5`, or tokens by a duration: `50/1m`, `5000/1h`."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from forge_jobs.clock import parse_duration

        if isinstance(value, float):
            return value
        tokens, slash, duration = str(value).partition("/")
        try:
            seconds = parse_duration(duration if duration[:1].isdigit() else f"1{duration}") if slash else None
            rate = float(tokens)
        except ValueError:
            self.fail(f"{value!r} is no rate: tokens a second such as 0.5, or by a duration such as 50/1m", param, ctx)
        if seconds is None:
            return rate
        if seconds <= timedelta(0):
            self.fail(f"{value!r} is no rate: the duration must be more than 0", param, ctx)
        return rate / seconds.total_seconds()


def _scope_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    return check_name(value, "scope")  # before a store is opened


@rich_click.group(cls=Group)
def limits() -> None:
    """List, add, tune, drain and remove rate limits.

    \b
    Example:
      forge-jobs limits list
      forge-jobs limits set gh --refill 5000/1h
    """


@limits.command("list", cls=Command)
@list_options
@global_options
@click.pass_context
def list_(ctx: click.Context, as_json: bool, as_jsonl: bool) -> None:
    """List all rate limits with the tokens that are in their buckets now.

    \b
    Example:
      forge-jobs limits list
      forge-jobs limits list --json
    """

    async def work(storage: Storage, settings: Settings) -> tuple[list[RateLimit], list[dict[str, Any]], datetime]:
        found = await storage.rate_limits.list()
        return found, await _users(storage, settings, found), from_us(storage.clock.now_us())

    found, users, now = run(ctx, work)
    items = [{**rate_limit_view(limit), **use} for limit, use in zip(found, users, strict=True)]
    if not output.for_programs(items, as_json=as_json, as_jsonl=as_jsonl):
        _print(found, users, now)


@limits.command("add", cls=Command)
@rich_click.argument("scope", callback=_scope_name)
@rich_click.option("--capacity", type=float, required=True, help="Tokens that a full bucket holds: the largest burst.")
@rich_click.option("--refill", type=Rate(), required=True, help="Tokens a second, or 50/1m; 0 is a fixed budget.")
@rich_click.option("--per-key", is_flag=True, help="A bucket for each scope SCOPE:KEY.")
@json_option
@global_options
@click.pass_context
def add(ctx: click.Context, scope: str, capacity: float, refill: float, per_key: bool, as_json: bool) -> None:
    """Make a rate limit, with a full bucket. One that exists stays as it is.

    \b
    Example:
      forge-jobs limits add gh --capacity 5000 --refill 5000/1h
      forge-jobs limits add slack --capacity 50 --refill 50/1m --per-key
    """
    declaration = RateLimitDeclaration(scope=scope, capacity=capacity, refill_per_s=refill, per_key=per_key)

    async def work(storage: Storage, settings: Settings) -> tuple[bool, RateLimit]:
        added = await storage.rate_limits.add(declaration, actor=actor())
        return added, await _get(storage, scope)

    added, stored = run(ctx, work)
    if not added:
        output.say(f"{scope} exists already and stays as it is; `forge-jobs limits set` changes it")
    _print_limit(stored, as_json)


@limits.command("set", cls=Command)
@rich_click.argument("scope", callback=_scope_name)
@rich_click.option("--capacity", type=float, help="Tokens that a full bucket holds; what is in beyond that is gone.")
@rich_click.option("--refill", type=Rate(), help="Tokens a second, or 50/1m; 0 is a fixed budget.")
@json_option
@global_options
@click.pass_context
def set_(ctx: click.Context, scope: str, capacity: float | None, refill: float | None, as_json: bool) -> None:
    """Tune a rate limit, with the scopes made from it. Workers feel it at once.

    \b
    Example:
      forge-jobs limits set gh --capacity 1000 --refill 1000/1h
    """
    if capacity is None and refill is None:
        raise Usage("nothing to change: give --capacity or --refill")
    if capacity is not None:
        check_capacity(capacity)  # before a store is opened
    if refill is not None:
        check_refill(refill)

    async def work(storage: Storage, settings: Settings) -> RateLimit:
        return await storage.rate_limits.change(scope, capacity=capacity, refill_per_s=refill, actor=actor())

    _print_limit(run(ctx, work), as_json)


@limits.command("drain", cls=Command)
@rich_click.argument("scope", callback=_scope_name)
@rich_click.option("--for", "retry_after", type=Duration(), help="Keep the bucket shut for so long, as a 429 asks.")
@json_option
@global_options
@click.pass_context
def drain(ctx: click.Context, scope: str, retry_after: timedelta | None, as_json: bool) -> None:
    """Empty a bucket: what it limits waits until it has refilled.

    \b
    Example:
      forge-jobs limits drain gh --for 10m
    """

    async def work(storage: Storage, settings: Settings) -> RateLimit:
        await _get(storage, scope)
        await storage.rate_limits.drain(scope, retry_after, actor=actor())
        return await _get(storage, scope)

    _print_limit(run(ctx, work), as_json)


@limits.command("remove", cls=Command)
@rich_click.argument("scope", callback=_scope_name)
@yes_option
@json_option
@global_options
@click.pass_context
def remove(ctx: click.Context, scope: str, yes: bool, as_json: bool) -> None:
    """Forget a rate limit and the scopes made from it. Jobs of handlers that declare it wait until it is there again.

    \b
    Example:
      forge-jobs limits remove gh --yes
    """
    if not yes:
        if not output.may_ask():
            raise Usage("limits remove asks first, and nobody is there to answer", "give --yes")
        click.confirm(f"Remove the rate limit {printable(scope)}?", abort=True, err=True)

    async def work(storage: Storage, settings: Settings) -> None:
        if not await storage.rate_limits.remove(scope, actor=actor()):
            raise _missing(scope)

    run(ctx, work)
    if as_json:
        output.document({"scope": scope, "removed": True})
    else:
        output.line(f"{scope} removed")


def _print(found: list[RateLimit], users: list[dict[str, Any]], now: datetime) -> None:
    output.table(
        [
            Column("scope"),
            Column("tokens", right=True),
            Column("capacity", right=True),
            Column("refill/s", right=True),
            Column("shut for", right=True),
            Column("keys"),
            Column("waiting", right=True),
            Column("kinds", brief=True),
        ],
        [
            (
                limit.scope,
                round(limit.tokens, 2),
                f"{limit.capacity:g}",
                f"{limit.refill_per_s:.4g}" if limit.refill_per_s else "fixed",
                None if limit.blocked_until is None else limit.blocked_until - now,
                "each its own" if limit.per_key else f"of {limit.template}" if limit.template else None,
                use["waiting"],
                ", ".join(use["kinds"]),
            )
            for limit, use in zip(found, users, strict=True)
        ],
    )


async def _users(storage: Storage, settings: Settings, found: list[RateLimit]) -> list[dict[str, Any]]:
    """The kinds that take from each limit, and their waiting jobs."""
    waiting: Counter[str] = Counter()
    for kinds in (await storage.jobs.waiting_kinds()).values():
        waiting.update(kinds)
    declared, processes = await storage.kinds.list(), await storage.processes.list(settings.runtime.stale_after)
    return [users_of(limit, declared, processes, waiting) for limit in found]


def _print_limit(limit: RateLimit, as_json: bool) -> None:
    if as_json:
        output.document(rate_limit_view(limit))
    else:
        output.fields(rate_limit_view(limit).items())


async def _get(storage: Storage, scope: str) -> RateLimit:
    limit = await storage.rate_limits.get(scope)
    if limit is None:
        raise _missing(scope)
    return limit


def _missing(scope: str) -> NotFound:
    return NotFound(f"there is no rate limit {scope!r}; `forge-jobs limits add` makes one")
