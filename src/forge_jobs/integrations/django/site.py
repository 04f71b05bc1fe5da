"""What the site says of its jobs: the setting FORGE_JOBS, the database, the handlers.

    FORGE_JOBS = {"DATABASE": "default", "QUEUES": ["default", "mail"], "SLOTS": 10}

DATABASE: the alias of the database that holds the jobs. URL: a store elsewhere, in place of it. QUEUES, SLOTS: those of
`forge_worker` if its command line names none. The handlers are in `handlers`, which the module `jobs` of every
installed app fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections

from forge_jobs.config import unknown_key
from forge_jobs.names import check_name
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.storage.error import InvalidName
from forge_jobs.sync.sync_queue import SyncQueue

SETTING: Final = "FORGE_JOBS"
REGISTRY: Final = "forge_jobs.integrations.django:handlers"
LIBPQ: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey", "passfile", "connect_timeout", "target_session_attrs")
"""Options of a database that its connections for jobs have too."""
LEGAL: Final = frozenset({"DATABASE", "URL", "QUEUES", "SLOTS"})

handlers: Final = HandlerRegistry()
"""The handlers of the site."""
_queues: dict[str, SyncQueue] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The checked setting."""

    database: str = DEFAULT_DB_ALIAS
    url: str | None = None
    queues: tuple[str, ...] = ("default",)
    slots: int | None = None

    @classmethod
    def read(cls) -> Site:
        """The setting of this site.

        Raises:
            ImproperlyConfigured: a key is unknown, or a value of another type.
        """
        given: Any = getattr(settings, SETTING, {})
        if not isinstance(given, dict):
            raise ImproperlyConfigured(f"{SETTING} must be a dict, not {given!r}")
        for key in given:
            if key not in LEGAL:
                raise ImproperlyConfigured(f"{SETTING}: {unknown_key(str(key), LEGAL)}")
        for key in ("DATABASE", "URL"):
            if not isinstance(given.get(key, ""), str):
                raise ImproperlyConfigured(f"{SETTING}: {key} {given[key]!r} must be text")
        site = cls(
            database=given.get("DATABASE", DEFAULT_DB_ALIAS),
            url=given.get("URL"),
            queues=_queues_of(given.get("QUEUES", ("default",))),
            slots=given.get("SLOTS"),
        )
        if site.database not in settings.DATABASES:
            raise ImproperlyConfigured(f"{SETTING}: DATABASE {site.database!r} is not in DATABASES")
        if site.slots is not None and (type(site.slots) is not int or site.slots < 1):
            raise ImproperlyConfigured(f"{SETTING}: SLOTS {site.slots!r} must be a whole number, 1 or more")
        return site

    @property
    def store_url(self) -> str:
        """The URL of the store.

        Raises:
            ImproperlyConfigured: the database is in memory, or neither SQLite nor PostgreSQL.
        """
        return self.url or url_of(connections[self.database].settings_dict)


def queue() -> SyncQueue:
    """The queue of the site, for what needs no transaction: `queue().get(job_id)`, `queue().wait(…)`, `queue().wake`.

    Opened by its first use, and kept.
    """
    url = Site.read().store_url
    if url not in _queues:
        _queues[url] = SyncQueue(url, handlers=handlers)
    return _queues[url]


def url_of(database: dict[str, Any]) -> str:
    """The URL of a store in a database of Django's.

    Raises:
        ImproperlyConfigured: it is in memory, or neither SQLite nor PostgreSQL.
    """
    engine, name = str(database.get("ENGINE", "")), str(database.get("NAME") or "")
    if engine.endswith("sqlite3"):
        if in_memory(name):
            raise ImproperlyConfigured(
                f"{SETTING}: database {name!r} is in the memory of one process, where no worker finds it; "
                "name a file, in tests with TEST.NAME"
            )
        return f"sqlite:///{Path(name).absolute()}"
    if not engine.endswith(("postgresql", "postgis", "postgresql_psycopg2")):
        raise ImproperlyConfigured(f"{SETTING}: {engine} is neither SQLite nor PostgreSQL; give a URL of its own")
    return _postgresql_url(database, name)


def in_memory(name: str) -> bool:
    return name == ":memory:" or "mode=memory" in name or not name


def _postgresql_url(database: dict[str, Any], name: str) -> str:
    user, password = (quote(str(database.get(key) or ""), safe="") for key in ("USER", "PASSWORD"))
    host, port = str(database.get("HOST") or ""), str(database.get("PORT") or "")
    options = {key: str(value) for key, value in database.get("OPTIONS", {}).items() if key in LIBPQ}
    if host.startswith("/"):  # the folder of a socket
        options["host"], host = host, ""
    who = f"{user}:{password}@" if password else f"{user}@" if user else ""
    query = f"?{urlencode(options)}" if options else ""
    return f"postgresql://{who}{host}{f':{port}' if port else ''}/{quote(name, safe='')}{query}"


def _queues_of(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)) or not value:
        raise ImproperlyConfigured(f"{SETTING}: QUEUES {value!r} must be a list of names")
    try:
        return tuple(check_name(name, "queue") for name in value)
    except InvalidName as error:
        raise ImproperlyConfigured(f"{SETTING}: QUEUES: {error}") from error
