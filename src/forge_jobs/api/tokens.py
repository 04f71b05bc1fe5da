"""Tokens from a file that only its owner can read, and the logins that were begun with them."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from forge_jobs.api.identity import Identity, Role
from forge_jobs.clock import parse_instant
from forge_jobs.names import check_name
from forge_jobs.payload import parse_json
from forge_jobs.storage.error import ConfigError, InvalidInput

log = logging.getLogger("forge_jobs.api")

SESSION: Final = timedelta(hours=12)
SESSIONS: Final = 1_000
"""Logins at a time; the oldest is ended for a new one."""
TOKEN_LENGTH: Final = 22
"""128 bits in base 64: shorter ones can be guessed."""
_FIELDS: Final = frozenset({"name", "sha256", "role", "queues", "expires_at"})
_NONE: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class _Token:
    digest: bytes
    identity: Identity


class Tokens:
    """Known tokens, and logins. The file is read again when it changes; one that cannot be read any more keeps what was
    known, and `trouble` says why."""

    def __init__(self, path: Path | None = None, *, secret: str | None = None) -> None:
        """
        Raises:
            ConfigError: the file cannot be used, or the secret is too short.
        """
        self._path = path
        self._own = [] if secret is None else [_of_secret(secret)]
        self._stamp: tuple[int, int, int] | None = None
        self._listed: list[_Token] = []
        self._sessions: OrderedDict[bytes, tuple[bytes, datetime]] = OrderedDict()
        self.trouble: str | None = None
        if path is not None:
            self._refresh(first=True)

    def find(self, token: bytes, now: datetime) -> Identity | None:
        self._refresh()
        return self._of_digest(hashlib.sha256(token).digest(), now)

    def find_session(self, session: str, now: datetime) -> Identity | None:
        found = self._sessions.get(_key(session))
        if found is None or found[1] <= now:
            return None
        self._refresh()
        return self._of_digest(found[0], now)

    def begin_session(self, token: bytes, now: datetime) -> tuple[str, datetime] | None:
        identity = self.find(token, now)
        if identity is None:
            return None
        until = now + SESSION if identity.expires_at is None else min(now + SESSION, identity.expires_at)
        session = secrets.token_urlsafe(32)
        self._sessions[_key(session)] = hashlib.sha256(token).digest(), until
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session, until

    def end_session(self, session: str) -> None:
        self._sessions.pop(_key(session), None)

    def _of_digest(self, digest: bytes, now: datetime) -> Identity | None:
        """Every token is compared, each in constant time, so that how long it takes tells nothing."""
        found = None
        for token in (*self._own, *self._listed):
            if hmac.compare_digest(token.digest, digest):
                found = token.identity
        if found is None or (found.expires_at is not None and found.expires_at <= now):
            return None
        return found

    def _refresh(self, *, first: bool = False) -> None:
        if self._path is None:
            return
        try:
            stamp = _stamp(self._path)  # before it is read: a change in between is seen the next time
            if stamp != self._stamp:
                self._listed, self._stamp, self.trouble = _read(self._path), stamp, None
        except (OSError, ConfigError) as error:
            if first:
                raise error if isinstance(error, ConfigError) else ConfigError(f"{self._path}: {error}") from error
            if self.trouble is None:
                log.warning("tokens_unreadable %s; those read before go on", error)
            self.trouble = str(error)


def _key(session: str) -> bytes:
    return hashlib.sha256(session.encode("utf-8", "replace")).digest()


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _of_secret(secret: str) -> _Token:
    if len(secret) < TOKEN_LENGTH:
        raise ConfigError(
            f"the API token has {len(secret)} characters; at least {TOKEN_LENGTH} are needed, or it can be guessed: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return _Token(hashlib.sha256(secret.encode()).digest(), Identity(name="token", role=Role.ADMIN))


def _read(path: Path) -> list[_Token]:
    """
    Raises:
        ConfigError: others can read the file, or an entry is not legal; named by its number.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"{path} has mode {stat.S_IMODE(mode):04o}, so others can read it: chmod 600 {path}")
        if os.name == "posix" and path.stat().st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{path} belongs to somebody else")
        document = parse_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except InvalidInput as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(document, dict) or document.keys() != {"tokens"} or not isinstance(document["tokens"], list):
        raise ConfigError(f'{path} is not of the form {{"tokens": [{{"name": …, "sha256": …, "role": …}}]}}')
    tokens = [_entry(path, number, entry) for number, entry in enumerate(document["tokens"], 1)]
    if not tokens:
        raise ConfigError(f"{path} holds no token, so nobody could call")
    return tokens


def _entry(path: Path, number: int, entry: Any) -> _Token:
    def refuse(why: str) -> ConfigError:
        return ConfigError(f"{path}, token {number}: {why}")

    if not isinstance(entry, dict):
        raise refuse("is not an object")
    unknown = sorted(entry.keys() - _FIELDS)
    if unknown:
        raise refuse(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    try:
        name = check_name(entry.get("name"), "token")
        queues = entry.get("queues")
        if queues is not None:
            if not isinstance(queues, list) or not queues:
                raise refuse("queues must be a list of names; leave it out for all queues")
            queues = tuple(check_name(queue, "queue") for queue in queues)
        expires = entry.get("expires_at")
        expires_at = None if expires is None else parse_instant(expires) if isinstance(expires, str) else refuse
    except InvalidInput as error:
        raise refuse(str(error)) from error
    except ValueError as error:
        raise refuse(f"expires_at: {error}") from error
    if not (expires_at is None or isinstance(expires_at, datetime)):
        raise refuse("expires_at must be text, such as 2027-01-01T00:00:00Z")
    digest, role = entry.get("sha256"), entry.get("role")
    if not isinstance(digest, str) or re.fullmatch(r"[0-9a-fA-F]{64}", digest) is None:
        raise refuse("sha256 must be the SHA-256 of the token in 64 hexadecimal digits: printf %s TOKEN | sha256sum")
    if role not in [one.word for one in Role]:
        raise refuse(f"role {role!r} must be one of {', '.join(one.word for one in Role)}")
    identity = Identity(name=name, role=Role[role.upper()], queues=queues, expires_at=expires_at)
    return _Token(bytes.fromhex(digest), identity)
