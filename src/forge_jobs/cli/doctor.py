"""`forge-jobs doctor`: is anything wrong, and what helps?"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import FAILURE, describe
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.logs import talk
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import global_options, json_option
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import opened, settings_of
from forge_jobs.storage.error import ForgeError
from forge_jobs.storage.open import masked
from forge_jobs.view.doctor import Check, Verdict, examine


@rich_click.command("doctor", cls=Command)
@json_option
@global_options
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the store, the settings and the workers. Exit code 1 if something fails.

    \b
    Example:
      forge-jobs doctor
      forge-jobs doctor --json
    """
    settings = settings_of(ctx)
    talk(logging.ERROR)
    checks = [*_check_settings(settings), *asyncio.run(_check_store(settings))]
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    if as_json:
        output.document(
            {"ok": not failed, "checks": [dataclasses.asdict(check) for check in checks], "config": _config(settings)}
        )
    else:
        _print(settings, checks)
    if failed:
        ctx.exit(FAILURE)


def _print(settings: Settings, checks: list[Check]) -> None:
    output.table(
        [Column("check"), Column("verdict"), Column("finding", wide=True)],
        [(check.name, check.verdict.value, check.detail) for check in checks],
    )
    todo = [check for check in checks if check.remedy]
    if todo:
        output.heading("what to do")
        output.fields((check.name, check.remedy) for check in todo)
    output.heading("settings")
    output.table(
        [Column("key"), Column("value"), Column("source")],
        [(one["key"], one["value"], one["source"]) for one in _config(settings)],
    )


def _config(settings: Settings) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": masked(value) if key == "database" else value, "source": str(settings.sources[key])}
        for key, value in sorted(settings.values.items())
    ]


def _check_settings(settings: Settings) -> list[Check]:
    if settings.notes:
        return [Check("settings", Verdict.WARN, note, "rename or remove it") for note in settings.notes]
    given = sum(settings.is_given(key) for key in settings.values)
    return [Check("settings", Verdict.OK, f"{given} given, {len(settings.values) - given} by default")]


async def _check_store(settings: Settings) -> list[Check]:
    try:
        async with opened(settings) as storage:
            return await examine(storage, await storage.processes.list(settings.runtime.stale_after))
    except ForgeError as error:
        text, hint, _ = describe(error)
        found, _, remedy = text.partition("; ")  # our messages end with what to do
        return [Check("store", Verdict.FAIL, found, hint or remedy or "`forge-jobs db status --debug` shows more")]
