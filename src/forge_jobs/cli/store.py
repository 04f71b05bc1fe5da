"""The store that a command works on, and who works on it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import click

from forge_jobs.cli.logs import talk
from forge_jobs.cli.parameters import Invocation
from forge_jobs.cli.settings import Settings, load_settings
from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig
from forge_jobs.storage.error import ConfigError, SchemaMismatch, StoreUnavailable
from forge_jobs.storage.open import Backend, backend_of, masked, migrate, open_storage, sqlite_path
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import Actor

T = TypeVar("T")


def settings_of(ctx: click.Context, **options: object) -> Settings:
    """The settings of a command; `options` are those that are given on its command line."""
    return load_settings({"database": ctx.ensure_object(Invocation).database, **options})


def run(ctx: click.Context, work: Callable[[Storage, Settings], Awaitable[T]], *, create: bool = False) -> T:
    """Open the store, do `work`, close the store. Without `create` nothing is created and no schema is changed."""
    settings = settings_of(ctx)
    talk(logging.WARNING)

    async def main() -> T:
        async with opened(settings, create=create) as storage:
            return await work(storage, settings)

    return asyncio.run(main())


@asynccontextmanager
async def opened(settings: Settings, *, create: bool = False, clock: Clock | None = None) -> AsyncIterator[Storage]:
    """The store of these settings; `clock` is for tests.

    Raises:
        StoreUnavailable: it does not exist, and `create` is False.
        SchemaMismatch: its schema lacks migrations, and `create` is False.
    """
    try:
        if not create:
            await must_exist(settings.database, settings.store)
        store = open_storage(settings.database, clock=clock, config=settings.store, create=create)
        storage = await store.__aenter__()
    except ConfigError as error:
        raise settings.blame(error) from error
    try:
        yield storage
    finally:
        await store.__aexit__(None, None, None)


async def must_exist(url: str, config: StoreConfig) -> None:
    """Refuse a database that is not there, or that is not ours or not up to date: a look must not change it."""
    if backend_of(url) is Backend.POSTGRESQL:
        return  # opening it says so itself, and changes nothing
    path = sqlite_path(url)
    if path == ":memory:":
        return
    if not Path(path).exists():
        raise StoreUnavailable(
            f"there is no database {Path(path).absolute()}; `forge-jobs db create` makes it, "
            "--database or FORGE_DATABASE_URL name another"
        )
    lacking = await migrate(url, plan=True)
    if lacking:
        raise SchemaMismatch(
            f"database {Path(path).absolute()} lacks {len(lacking)} migration{'s' if len(lacking) > 1 else ''}; "
            "`forge-jobs db migrate` applies them"
        )


def shown_url(url: str) -> str:
    """The URL for people: secrets masked, the path absolute."""
    if ":memory:" in url or backend_of(url) is Backend.POSTGRESQL:
        return masked(url)
    return f"sqlite:///{Path(sqlite_path(url)).absolute()}"


def actor() -> Actor:
    """Who runs this program, as the operating system has it; the environment could say anything."""
    try:
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        name = f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
    return Actor(name=name, surface="cli")
