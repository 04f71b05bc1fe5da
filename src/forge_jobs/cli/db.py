"""`forge-jobs db`: the store as a whole."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import Failure, Usage
from forge_jobs.cli.lazy_group import Command, Group
from forge_jobs.cli.logs import talk
from forge_jobs.cli.parameters import global_options, json_option
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import opened, run, settings_of, shown_url
from forge_jobs.storage.error import ConfigError, StorageError
from forge_jobs.storage.open import Backend, backend_of, drop_store, migrate, schema_sql, sqlite_path
from forge_jobs.storage.protocol import Storage
from forge_jobs.text import size


@rich_click.group(cls=Group)
def db() -> None:
    """Create, migrate, inspect, back up and drop the store.

    \b
    Example:
      forge-jobs db create
      forge-jobs db status
    """


@db.command("create", cls=Command)
@json_option
@global_options
@click.pass_context
def create(ctx: click.Context, as_json: bool) -> None:
    """Create the store if there is none, and bring its schema up to date.

    \b
    Example:
      forge-jobs --database sqlite:////var/lib/app/jobs.db db create
    """
    settings = settings_of(ctx)
    existed = _exists(settings)

    async def work(storage: Storage, settings: Settings) -> None:
        pass

    run(ctx, work, create=True)
    _tell({"store": shown_url(settings.database), "created": not existed}, "exists" if existed else "created", as_json)


@db.command("migrate", cls=Command)
@rich_click.option("--plan", is_flag=True, help="Print the SQL that is missing; change nothing.")
@json_option
@global_options
@click.pass_context
def migrate_(ctx: click.Context, plan: bool, as_json: bool) -> None:
    """Bring the schema of the store up to date. Workers may go on meanwhile.

    \b
    Example:
      forge-jobs db migrate --plan
      forge-jobs db migrate
    """
    settings = settings_of(ctx)
    _must_exist(settings)
    steps = asyncio.run(_migrate(settings, plan=plan))
    if as_json:
        output.document({"store": shown_url(settings.database), "planned" if plan else "applied": steps})
    elif plan:
        for step in steps:
            output.raw(f"{step.rstrip()}\n")
        output.say(f"{_migrations(len(steps))} to apply")
    else:
        output.line(f"{_migrations(len(steps))} applied to {shown_url(settings.database)}")


@db.command("status", cls=Command)
@json_option
@global_options
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show version, sizes and durability of the store; exit code 1 if it is away or lacks migrations.

    \b
    Example:
      forge-jobs db status --json
    """
    settings = settings_of(ctx)
    _must_exist(settings)
    lacking = asyncio.run(_migrate(settings, plan=True))
    if lacking:
        found: dict[str, Any] = {"store": shown_url(settings.database), "current": False, "lacking": len(lacking)}
    else:

        async def work(storage: Storage, settings: Settings) -> dict[str, Any]:
            return {"store": storage.url, "current": True, **await storage.maintenance.status()}

        found = run(ctx, work)
    if as_json:
        output.document(found)
    else:
        output.fields((key, size(value) if key.endswith("_bytes") else value) for key, value in found.items())
    if lacking:
        raise Failure(f"the store lacks {_migrations(len(lacking))}", "`forge-jobs db migrate` applies them")


@db.command("sql", cls=Command)
@global_options
@click.pass_context
def sql(ctx: click.Context) -> None:
    """Print the complete schema, for people who apply it themselves.

    \b
    Example:
      forge-jobs db sql > schema.sql
    """
    settings = settings_of(ctx)
    output.raw(f"{schema_sql(settings.database, config=settings.store).rstrip()}\n")


@db.command("backup", cls=Command)
@rich_click.argument("file")
@json_option
@global_options
@click.pass_context
def backup(ctx: click.Context, file: str, as_json: bool) -> None:
    """Write a consistent copy of the store into a new FILE, while workers run.

    \b
    Example:
      forge-jobs db backup /backup/jobs-2026-03-01.db
    """

    directory = Path(file).absolute().parent
    if not directory.is_dir():
        raise Failure(f"the directory {directory} does not exist", "make it first")

    async def work(storage: Storage, settings: Settings) -> None:
        await storage.maintenance.backup(file)

    if _is_server(settings_of(ctx)):
        schema = settings_of(ctx).store.schema
        raise Failure("a PostgreSQL store is backed up with the server's tools", f"pg_dump --schema={schema}")
    run(ctx, work)
    written = Path(file).stat().st_size
    if as_json:
        output.document({"file": str(Path(file).absolute()), "size_bytes": written})
    else:
        output.line(f"{file} written, {size(written)}")


@db.command("drop", cls=Command)
@rich_click.option("--force", is_flag=True, help="Yes, remove everything.")
@rich_click.option("--even-if-live", is_flag=True, help="Also while workers are alive.")
@json_option
@global_options
@click.pass_context
def drop(ctx: click.Context, force: bool, even_if_live: bool, as_json: bool) -> None:
    """Remove the store with everything in it. Refused while workers are alive.

    \b
    Example:
      forge-jobs --database sqlite:///scratch.db db drop --force
    """
    settings = _ready_to_drop(ctx, "drop", force, even_if_live)
    asyncio.run(drop_store(settings.database, config=settings.store))
    _tell({"store": shown_url(settings.database), "dropped": True}, "dropped", as_json)


@db.command("reset", cls=Command)
@rich_click.option("--force", is_flag=True, help="Yes, remove everything.")
@rich_click.option("--even-if-live", is_flag=True, help="Also while workers are alive.")
@json_option
@global_options
@click.pass_context
def reset(ctx: click.Context, force: bool, even_if_live: bool, as_json: bool) -> None:
    """Remove the store with everything in it, and create an empty one. Refused while workers are alive.

    \b
    Example:
      forge-jobs --database sqlite:///scratch.db db reset --force
    """
    settings = _ready_to_drop(ctx, "reset", force, even_if_live)
    asyncio.run(drop_store(settings.database, config=settings.store))

    async def work(storage: Storage, settings: Settings) -> None:
        pass

    run(ctx, work, create=True)
    _tell({"store": shown_url(settings.database), "reset": True}, "reset: it is empty now", as_json)


def _ready_to_drop(ctx: click.Context, verb: str, force: bool, even_if_live: bool) -> Settings:
    """The settings, once it is clear that the store may go."""
    settings = settings_of(ctx)
    store = shown_url(settings.database)
    if not force:
        raise Usage(f"db {verb} would remove {store} with every job in it", "give --force if that is what you want")
    output.say(f"store: {store}")
    _must_exist(settings)
    if not even_if_live:
        live = asyncio.run(_live_workers(settings))
        if live:
            raise Failure(
                f"{store} has live workers: {', '.join(live)}", "stop them first, or give --even-if-live if they hang"
            )
    return settings


async def _live_workers(settings: Settings) -> list[str]:
    talk(logging.WARNING)
    try:
        async with opened(settings) as storage:
            processes = await storage.processes.list(settings.runtime.stale_after)
    except StorageError as error:
        hint = "give --even-if-live to remove it all the same"
        raise Failure(f"whether the store has live workers cannot be seen: {error}", hint) from error
    return [f"{row.info.label or row.info.host_id} (pid {row.info.pid})" for row in processes if row.live]


async def _migrate(settings: Settings, *, plan: bool) -> list[str]:
    talk(logging.WARNING)
    try:
        return await migrate(settings.database, plan=plan, config=settings.store)
    except ConfigError as error:
        raise settings.blame(error) from error


def _exists(settings: Settings) -> bool:
    """Whether there is a store of ours."""
    if _is_server(settings):
        return asyncio.run(_migrate(settings, plan=True)) == []
    return Path(sqlite_path(settings.database)).exists()


def _must_exist(settings: Settings) -> None:
    if _is_server(settings):
        return
    path = Path(sqlite_path(settings.database)).absolute()
    if not path.exists():
        raise Failure(f"there is no database {path}", "`forge-jobs db create` makes it; --database names another")


def _is_server(settings: Settings) -> bool:
    """On a server, opening a store says by itself whether it is there."""
    return backend_of(settings.database) is Backend.POSTGRESQL


def _migrations(count: int) -> str:
    return "1 migration" if count == 1 else f"{count} migrations"


def _tell(fields: dict[str, Any], what: str, as_json: bool) -> None:
    if as_json:
        output.document(fields)
    else:
        output.line(f"{fields['store']} {what}")
