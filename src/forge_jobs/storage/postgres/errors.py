"""PostgreSQL's errors by class, decided by SQLSTATE. The driver's text goes to the log only."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import conninfo

from forge_jobs.storage.error import Busy, ConfigError, SchemaMismatch, StorageError, StoreFull, StoreUnavailable

log = logging.getLogger("forge_jobs.postgres")

DRIVER_ERRORS: Final = (psycopg.Error, OSError)
CONFLICTS: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock timeout: the same transaction may well succeed a moment later."""
_AWAY: Final = frozenset({"57P01", "57P02", "57P03", "53300", "25006"})
"""Shut down, crashed, starting, too many connections, read-only: this connection is of no use, another may be."""
_FULL: Final = frozenset({"53100"})
_CANCELLED: Final = frozenset({"57014"})
_SCHEMA: Final = frozenset({"42P01", "3F000", "42703", "42883"})
_TAKEN: Final = frozenset({"42P07", "42723", "42710"})
_RIGHTS: Final = frozenset({"42501", "28000", "28P01", "3D000"})


def is_conflict(error: BaseException) -> bool:
    return getattr(error, "sqlstate", None) in CONFLICTS


def is_away(error: BaseException) -> bool:
    """Whether a new connection is needed, and may help."""
    if isinstance(error, OSError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state in _AWAY or state.startswith("08")


def translate(error: BaseException, url: str) -> StorageError | ConfigError:
    """The error of ours that an error of the driver means."""
    state = getattr(error, "sqlstate", None)
    log.debug("postgres_error sqlstate=%s text=%s", state, error)
    if is_away(error):
        return StoreUnavailable(away(error, url))
    if state in CONFLICTS:
        return Busy("the rows stayed locked by other transactions past the deadline; nothing was written")
    if state in _CANCELLED:
        return Busy("the server took too long over a statement and gave it up; nothing was written")
    if state in _FULL:
        return StoreFull("the disk of the database is full; nothing was written. Free some space, then try again")
    if state in _SCHEMA:
        return SchemaMismatch(
            f"the schema of {place(url)} lacks something this program needs (SQLSTATE {state}); "
            "`forge-jobs db status` shows what, `forge-jobs db migrate` adds it"
        )
    if state in _TAKEN:
        return SchemaMismatch(
            f"the schema at {place(url)} holds something of the same name that forge-jobs did not make "
            f"({_first_line(error)}); give another `schema`"
        )
    if state in _RIGHTS:
        return ConfigError(f"{place(url)} refuses this user or database ({_first_line(error)}); check URL and grants")
    return StorageError(f"the database refused a statement (SQLSTATE {state or type(error).__name__})")


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Errors of the driver as ours."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise translate(error, url) from error


def away(error: BaseException, url: str) -> str:
    """Why the server cannot be used, for people."""
    return f"PostgreSQL at {place(url)} does not answer ({_first_line(error)})"


def place(url: str) -> str:
    """Host, port and database of a URL, without user and password."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return "the given URL"
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    port = f":{parts['port']}" if parts.get("port") else ""
    return f"{host}{port}/{parts.get('dbname') or ''}"


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return re.sub(r"^connection failed: |^connection to server at [^:]*: |^FATAL:\s+", "", line)[:200]
