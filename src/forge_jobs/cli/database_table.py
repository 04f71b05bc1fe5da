"""A database described by a table of the configuration file, as the URL that it stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from forge_jobs.config import unknown_key
from forge_jobs.storage.error import ConfigError

KEYS: Final = ("host", "port", "database", "username", "password", "password_env", "password_file")
POSTGRES_PORT: Final = 5432


def url_of_table(table: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The `postgresql://` URL of host, port (5432), database, username and a password.

    The password is `password`, else the value of the variable `password_env`, else what `password_file` holds.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong type, or the password is not where it is said to be.
    """
    for key, value in table.items():
        if key not in KEYS:
            raise ConfigError(f"database: {unknown_key(key, list(KEYS))} (its value is {value!r})")
    port = table.get("port", POSTGRES_PORT)
    if type(port) is not int or not 1 <= port <= 65_535:
        raise ConfigError(f"database: port {port!r} must be a whole number from 1 to 65535")
    user, host, name = (quote(_text(table, key), safe="") for key in ("username", "host", "database"))
    if host.startswith("%2F"):  # the folder of a Unix socket
        return f"postgresql://{user}:{quote(_password(table, environment), safe='')}@:{port}/{name}?host={host}"
    return f"postgresql://{user}:{quote(_password(table, environment), safe='')}@{host}:{port}/{name}"


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if value is None:
        raise ConfigError(f"database: {key} is missing; the table needs host, database, username and a password")
    if type(value) is not str or not value:
        shown = "…" if key == "password" else repr(value)
        raise ConfigError(f"database: {key} {shown} must be text that is not empty")
    return value


def _password(table: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    if "password" in table:
        return _text(table, "password")
    if "password_env" in table:
        return _password_of_variable(_text(table, "password_env"), environment)
    if "password_file" in table:
        return _password_of_file(Path(_text(table, "password_file")))
    raise ConfigError(
        "database: there is none of password, password_env and password_file; for a server that asks for no password "
        'write the database as a URL: database = "postgresql://user@host/database"'
    )


def _password_of_variable(name: str, environment: Mapping[str, str]) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        # It may be the password itself, so it is not repeated.
        raise ConfigError(
            "database: password_env names no variable (capitals, digits and _); is it the password itself? "
            "Then call the key password, or put it into a variable and name that"
        )
    if not environment.get(name):
        raise ConfigError(f"database: password_env names the variable {name}, which is not set")
    return environment[name]


def _password_of_file(path: Path) -> str:
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"database: password_file {str(path)!r} cannot be read: {reason}") from error
    if not password:
        raise ConfigError(f"database: password_file {str(path)!r} is empty")
    return password
