"""Commands that are imported when they are used, and help that fits the place where it is read.

On a terminal help is drawn by rich-click. In a pipe, or on a terminal that cannot draw, it is click's plain text,
which also spares the import of rich.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click
from rich_click import RichCommand, RichGroup

from forge_jobs.cli.output import can_draw


class ClosedPipe(Exception):
    """Whoever read our output has gone."""


class NoCommand(click.UsageError):
    """A group was named without one of its commands; the message is its help."""


class Command(RichCommand):
    """A command."""

    def get_help(self, ctx: click.Context) -> str:
        if can_draw():
            return super().get_help(ctx)
        return _plain_help(self, ctx)


class Group(RichGroup):
    """A group of commands; `lazy` maps a name to where its command is, `module:attribute`, and its short help."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, **kwargs})
        self._lazy = dict(lazy or {})
        for name, (_, short_help) in self._lazy.items():
            self.add_command(Command(name=name, help=short_help))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands, key=lambda name: name in self._lazy)  # in the order of writing, lazy ones last

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in self._lazy:
            module, _, attribute = self._lazy[name][0].partition(":")
            command = getattr(importlib.import_module(module), attribute)
        return name, command, rest

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            raise NoCommand(self.get_help(ctx), ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # not an OSError from here on: click would end the program with code 1
            raise ClosedPipe from error

    def get_help(self, ctx: click.Context) -> str:
        if can_draw():
            return super().get_help(ctx)
        return _plain_help(self, ctx)


def _plain_help(command: click.Command, ctx: click.Context) -> str:
    formatter = click.HelpFormatter(width=100)
    pieces = command.collect_usage_pieces(ctx)
    formatter.write_usage(ctx.command_path, " ".join(pieces))
    click.Command.format_help_text(command, ctx, formatter)
    click.Command.format_options(command, ctx, formatter)
    if isinstance(command, click.Group):
        click.Group.format_commands(command, ctx, formatter)
    click.Command.format_epilog(command, ctx, formatter)
    return formatter.getvalue().rstrip("\n")
