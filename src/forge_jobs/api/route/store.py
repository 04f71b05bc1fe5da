"""`/storage`, `/doctor` and `/me`: what this server stands on, whether that is sound, and who calls."""

from __future__ import annotations

import dataclasses
from typing import Final

from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.overview import Findings, Me, StoreInfo
from forge_jobs.version import __version__
from forge_jobs.view.doctor import Check, Verdict

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


@endpoint(router, "GET", "/doctor", role=Role.READ, answer=Findings, tag="store")
async def findings(call: Caller) -> Json:
    """What `forge-jobs doctor` says of the store, its workers and its schedules, with what to do about it.

    The settings of this server are not looked at. The store is examined at most every ten seconds.
    """
    found = await call.services.doctor.findings()
    checks = [check for check in found.checks if _may_know(call, check)]
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    return Json({"at": found.at, "ok": not failed, "checks": checks})


def _may_know(call: Call, check: Check) -> bool:
    queue = check.queue or (None if check.kind is None else call.config.router.route(check.kind))
    return queue is None or call.identity.may_see(queue)


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
