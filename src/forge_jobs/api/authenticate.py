"""Who calls: a bearer token, a login cookie, or the application's own word."""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection

from forge_jobs.api.attempts import Attempts
from forge_jobs.api.config import ApiConfig
from forge_jobs.api.identity import ANYONE, Identity
from forge_jobs.api.problem import Problem
from forge_jobs.clock import from_us
from forge_jobs.storage.protocol import Storage

COOKIE: Final = "forge_session"
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="forge-jobs"'}


class Authenticator:
    """Names the caller of a request."""

    def __init__(self, config: ApiConfig, storage: Storage, attempts: Attempts) -> None:
        self._config = config
        self._storage = storage
        self._attempts = attempts

    async def identify(self, connection: HTTPConnection, *, needed: bool) -> Identity | None:
        """The caller; None only if it need not be known.

        Raises:
            Problem: it is not known and must be, or its address guessed too often.
        """
        if self._config.authenticate is not None:
            identity = await self._config.authenticate(connection)
        elif self._config.tokens is None:
            return ANYONE
        else:
            identity = self._of_token(connection, needed=needed)
        if identity is None and needed:
            raise Problem("unauthorized", "this needs a token: Authorization: Bearer …", headers=CHALLENGE)
        return identity

    def _of_token(self, connection: HTTPConnection, *, needed: bool) -> Identity | None:
        tokens = self._config.tokens
        assert tokens is not None
        now = from_us(self._storage.clock.now_us())
        header = connection.headers.get("authorization")
        session = connection.cookies.get(COOKIE)
        if header is None and session is None:
            return None
        address = connection.scope["forge.address"]
        self._attempts.check(address)
        if header is not None:
            scheme, _, token = header.partition(" ")
            identity = tokens.find(token.strip().encode("latin-1"), now) if scheme.lower() == "bearer" else None
        else:
            assert session is not None
            identity = tokens.find_session(session, now)
        if identity is None and (header is not None or needed):
            self._attempts.failed(address)
        return identity
