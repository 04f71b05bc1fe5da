"""The app: it finds the handlers, checks the settings, and makes the tables with everybody else's."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules

from forge_jobs.integrations.django.site import Site, in_memory
from forge_jobs.storage.open import migrate

CHECKPOINTS = "wal_autocheckpoint"


class ForgeJobsConfig(AppConfig):
    """`INSTALLED_APPS = [..., "forge_jobs.integrations.django"]`"""

    name = "forge_jobs.integrations.django"
    label = "forge_jobs"
    verbose_name = "forge-jobs"

    def ready(self) -> None:
        autodiscover_modules("jobs")
        checks.register(check_site)
        post_migrate.connect(make_tables, sender=self)


def make_tables(sender: AppConfig, *, using: str, **_: Any) -> None:
    """After `migrate` of the database that holds the jobs, bring our tables up to date. Test databases as well."""
    site = Site.read()
    if using != site.database or site.url is not None:
        return
    connection = connections[using]
    if connection.vendor == "sqlite" and in_memory(str(connection.settings_dict["NAME"])):
        _fill_memory(connection)
    else:
        with ThreadPoolExecutor(1) as elsewhere:  # this thread may run an event loop
            elsewhere.submit(asyncio.run, migrate(site.store_url)).result()


def check_site(**_: Any) -> list[checks.CheckMessage]:
    """What is wrong with the settings."""
    try:
        site = Site.read()
    except ImproperlyConfigured as error:
        return [checks.Error(str(error), id="forge_jobs.E001")]
    database = connections[site.database].settings_dict
    leaves_it = CHECKPOINTS in str(database.get("OPTIONS", {}).get("init_command", ""))
    if site.url is None and str(database["ENGINE"]).endswith("sqlite3") and not leaves_it:
        return [
            checks.Warning(
                f"Django checkpoints the database {site.database!r} by itself, which some versions of SQLite do wrong",
                hint=f'OPTIONS: {{"init_command": "PRAGMA {CHECKPOINTS}=0"}} leaves it to forge-jobs',
                id="forge_jobs.W001",
            )
        ]
    return []


def _fill_memory(connection: Any) -> None:
    """A database of this connection alone, in tests: no worker can open it, but what is enqueued can be looked at."""
    from forge_jobs.storage.sqlite.migrate import schema_text

    if "forge_schema" not in connection.introspection.table_names():
        connection.ensure_connection()
        connection.connection.executescript(schema_text())
