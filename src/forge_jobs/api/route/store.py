"""`/storage` and `/me`: what this server stands on, and who calls."""

from __future__ import annotations

import dataclasses
from typing import Final

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.overview import Me, StoreInfo
from forge_jobs.version import __version__

router = api_router()
_NAMED: Final = ("backend", "schema_version", "pending_migrations", "durability")


@endpoint(router, "GET", "/storage", role=Role.READ, answer=StoreInfo, tag="store")
async def storage_info(call: Caller) -> Json:
    """The store: backend, version, durability, sizes, and who runs the background loops."""
    status = await call.storage.maintenance.status()
    return Json(
        {
            "backend": status["backend"],
            "url": call.storage.url,
            "version": str(status.get("sqlite_version") or status.get("server_version") or ""),
            "schema_version": status["schema_version"],
            "pending_migrations": status["pending_migrations"],
            "durability": status.get("durability"),
            "leases": [dataclasses.asdict(lease) for lease in await call.storage.leases.list()],
            "settings": {key: value for key, value in status.items() if key not in _NAMED},
        }
    )


@endpoint(router, "GET", "/me", role=Role.READ, answer=Me, tag="store")
async def me(call: Caller) -> Json:
    """Who calls, and what they may do."""
    own, config = call.identity, call.config
    return Json(
        {
            "name": own.name,
            "role": own.role.word,
            "queues": own.queues,
            "read_only": config.read_only or own.role is Role.READ,
            "login": config.tokens is not None,
            "expires_at": own.expires_at,
            "version": __version__,
        }
    )
