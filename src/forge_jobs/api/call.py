"""One request, as the functions that answer it see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from forge_jobs.api.config import ApiConfig
from forge_jobs.api.identity import Identity
from forge_jobs.api.services import Services
from forge_jobs.clock import from_us
from forge_jobs.redact import Secrets
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.process import ProcessRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What lives as long as the request."""

    storage: Storage
    config: ApiConfig
    identity: Identity
    actor: Actor
    request: Request
    services: Services

    @property
    def now(self) -> datetime:
        return from_us(self.storage.clock.now_us())

    async def processes(self) -> list[ProcessRow]:
        return await self.storage.processes.list(self.config.stale_after)

    async def secrets(self) -> Secrets:
        """What is hidden of jobs, from whoever calls."""
        return await self.storage.kinds.secrets()

    def see_queue(self, name: str) -> str:
        """The name, if the caller may know of this queue.

        Raises:
            NotFound: it may not.
        """
        if not self.identity.may_see(name):
            raise NotFound(f"there is no queue {name[:128]!r}")
        return name


def _call(request: Request) -> Call:
    scope = request.scope
    identity: Identity = scope["forge.identity"]
    return Call(
        storage=scope["forge.storage"],
        config=scope["forge.config"],
        identity=identity,
        actor=Actor(
            name=identity.name,
            role=identity.role.word,
            surface="http",
            address=scope["forge.address"],
            request_id=scope["forge.request_id"],
        ),
        request=request,
        services=scope["forge.services"],
    )


Caller = Annotated[Call, Depends(_call)]
