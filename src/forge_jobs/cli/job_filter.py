"""The options that choose jobs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click
import rich_click

from forge_jobs.cli.parameters import Instant
from forge_jobs.names import check_name
from forge_jobs.storage.error import InvalidName
from forge_jobs.storage.types.job import DeadReason, JobFilter, JobStatus

F = TypeVar("F", bound=Callable[..., Any])


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """Check the names that an option was given; None if it was not."""
    try:
        return tuple(check_name(value, str(param.name).rstrip("s")) for value in values) or None
    except InvalidName as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from error


def _chosen(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    return values or None


_OPTIONS = (
    rich_click.option("--queue", "queues", multiple=True, callback=names, help="Of this queue; several may be given."),
    rich_click.option("--kind", "kinds", multiple=True, callback=names, help="Of this kind; several may be given."),
    rich_click.option(
        "--status",
        "statuses",
        multiple=True,
        callback=_chosen,
        type=click.Choice([status.value for status in JobStatus]),
        help="In this status; several may be given.",
    ),
    rich_click.option(
        "--dead-reason",
        "dead_reasons",
        multiple=True,
        callback=_chosen,
        type=click.Choice([reason.value for reason in DeadReason]),
        help="Dead for this reason; several may be given.",
    ),
    rich_click.option("--key", metavar="KEY", help="With this dedupe key."),
    rich_click.option("--tag", metavar="TAG", help="With this tag."),
    rich_click.option("--search", metavar="TEXT", help="With this text in the payload, upper or lower case."),
    rich_click.option("--error", metavar="TEXT", help="With this text in the last error."),
    rich_click.option(
        "--since", type=Instant(ago=True), help="Enqueued at or after this, e.g. 2h or 2026-03-01T00:00:00Z."
    ),
    rich_click.option("--until", type=Instant(ago=True), help="Enqueued at or before this."),
)


def filter_options(function: F) -> F:
    """Add the options that choose jobs; the command gets them as one `chosen: JobFilter`."""

    @functools.wraps(function)
    def with_filter(
        *args: Any,
        queues: tuple[str, ...] | None,
        kinds: tuple[str, ...] | None,
        statuses: tuple[str, ...] | None,
        dead_reasons: tuple[str, ...] | None,
        key: str | None,
        tag: str | None,
        search: str | None,
        error: str | None,
        since: datetime | None,
        until: datetime | None,
        **rest: Any,
    ) -> Any:
        chosen = JobFilter(
            queues=queues,
            kinds=kinds,
            statuses=statuses,
            dead_reasons=dead_reasons,
            key=key,
            tag=tag,
            search=search,
            error=error,
            since=since,
            until=until,
        )
        return function(*args, chosen=chosen, **rest)

    decorated: Any = with_filter
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
