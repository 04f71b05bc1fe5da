"""What lives as long as the app."""

from __future__ import annotations

from dataclasses import dataclass

from forge_jobs.api.attempts import Attempts
from forge_jobs.api.authenticate import Authenticator
from forge_jobs.api.banners import Banners
from forge_jobs.api.doctor import Doctor
from forge_jobs.api.operations import Operations
from forge_jobs.api.stream import Hub
from forge_jobs.prometheus.exposition import Exposition


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Shared by all requests."""

    attempts: Attempts
    authenticator: Authenticator
    banners: Banners
    operations: Operations
    hub: Hub
    exposition: Exposition
    doctor: Doctor

    async def close(self) -> None:
        """End streams and operations."""
        self.hub.close()
        await self.operations.close()
        await self.exposition.close()
