"""Values on the command line, and options that many commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click
import rich_click

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Invocation:
    """What the global options said."""

    database: str | None = None
    debug: bool = False


class Duration(click.ParamType[timedelta]):
    """`90`, `90s`, `5m`, `2h`, `7d` or `250ms`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from forge_jobs.clock import parse_duration

        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Instant(click.ParamType[datetime]):
    """An RFC 3339 instant with its offset, or with `ago` a duration before now."""

    name = "instant"

    def __init__(self, *, ago: bool = False) -> None:
        self._ago = ago

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if self._ago:
            from forge_jobs.clock import parse_duration

            try:
                return datetime.now(UTC) - parse_duration(value)
            except (ValueError, OverflowError):
                pass  # not a duration; what is said about instants fits better
        try:
            from forge_jobs.clock import parse_instant

            return parse_instant(value)
        except ValueError as error:
            self.fail(f"{error}{', or a duration before now such as 2h' if self._ago else ''}", param, ctx)


class OrNone(click.ParamType[Any]):
    """A value of another type, or the word `none`."""

    def __init__(self, inner: click.ParamType[Any], name: str) -> None:
        self._inner = inner
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return NONE if value == "none" or value is NONE else self._inner.convert(value, param, ctx)


class Days(click.ParamType[float]):
    """A number of days, or a duration such as `12h`."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from forge_jobs.clock import parse_duration

        try:
            plain = str(value).replace(".", "", 1).isdigit()
            return float(value) if plain else parse_duration(str(value)) / timedelta(days=1)
        except ValueError:
            self.fail(f"{value!r} is neither a number of days nor a duration such as 12h", param, ctx)


NONE: Final[Any] = object()
"""What the word `none` becomes, where `None` means that the option was not given."""


def global_options(function: F) -> F:
    """`--database` and `--debug`, understood before and after the name of the command."""
    function = rich_click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember("debug"),
        help="Show the traceback of a failure.",
    )(function)
    return rich_click.option(
        "--database",
        metavar="URL",
        expose_value=False,
        callback=_remember("database"),
        help="The store, such as sqlite:///jobs.db. Else FORGE_DATABASE_URL, forge.toml, sqlite:///forge-jobs.db.",
    )(function)


def json_option(function: F) -> F:
    """`--json`."""
    return rich_click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def list_options(function: F) -> F:
    """`--json` and `--jsonl`, of commands that print a list."""
    function = rich_click.option("--jsonl", "as_jsonl", is_flag=True, help="Print one JSON document a line.")(function)
    return json_option(function)


def yes_option(function: F) -> F:
    """`--yes`, of commands that ask first."""
    return rich_click.option("--yes", "-y", is_flag=True, help="Do not ask.")(function)


def _remember(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            setattr(ctx.ensure_object(Invocation), field, value)
        elif value == "":
            raise click.BadParameter("is empty; give a URL such as sqlite:///jobs.db", ctx=ctx, param=param)

    return callback
