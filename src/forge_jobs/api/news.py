"""What is new in the store since the last look."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from forge_jobs.api.banners import Banners
from forge_jobs.api.describe import describe_every_queue
from forge_jobs.clock import from_us
from forge_jobs.storage.protocol import Storage
from forge_jobs.view.follow import Follower
from forge_jobs.view.job import event
from forge_jobs.view.process import process_view
from forge_jobs.view.rate_limit import rate_limit_view
from forge_jobs.view.schedule import schedule_view

SNAPSHOT_S: Final = 2.0
"""How often queues, workers, schedules and limits are compared; job events come as they are written."""
_ALWAYS_MOVING: Final = frozenset({"heartbeat_at", "loop_lag_ms", "tokens"})
"""Fields whose change alone is no news."""
_HIDDEN: Final = frozenset({"payload", "differences"})
Item: TypeAlias = tuple[str, dict[str, Any], str | None, str | None, str | None]
"""Name, data, and the queue, kind and job that it is about."""


class Snapshots:
    """Compares the store with what it was."""

    def __init__(self, storage: Storage, banners: Banners, stale_after: timedelta) -> None:
        self._storage = storage
        self._banners = banners
        self._stale_after = stale_after
        self._follower = Follower(storage, self.now)
        self._before: dict[str, Mapping[str, dict[str, Any]]] = {}
        self._next = 0.0

    @property
    def now(self) -> datetime:
        return from_us(self._storage.clock.now_us())

    async def news(self) -> list[Item]:
        """What happened to jobs, and what changed of everything else."""
        found: list[Item] = [("job", event(one), one.queue, one.kind, one.job_id) for one in await self._follower.new()]
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SNAPSHOT_S
            for name, key, present in await self._look():
                found += self._compare(name, key, present)
        return found

    def present_banners(self) -> list[Item]:
        """The banners of the last look, as if they were new."""
        return [("banner", one, one["queue"], None, None) for one in self._before.get("banner", {}).values()]

    async def _look(self) -> list[tuple[str, str, dict[str, dict[str, Any]]]]:
        storage = self._storage
        processes = await storage.processes.list(self._stale_after)
        workers = {row.info.host_id: process_view(row, {}) for row in processes}
        secrets = await storage.kinds.secrets()
        schedules = {one.name: schedule_view(one, secrets) for one in await storage.schedules.list()}
        described = await describe_every_queue(storage, processes)
        queues = {queue["name"]: queue for queue in described}
        banners = {one["id"]: one for one in await self._banners.look(described, processes)}
        limits = {one.scope: rate_limit_view(one) for one in await storage.rate_limits.list()}
        return [
            ("queue", "name", queues),
            ("worker", "host_id", workers),
            ("schedule", "name", schedules),
            ("limit", "scope", limits),
            ("banner", "id", banners),
        ]

    def _compare(self, name: str, key: str, present: dict[str, dict[str, Any]]) -> list[Item]:
        before = self._before.get(name)
        self._before[name] = present
        if before is None and name != "banner":  # of which a stream tells from the beginning
            return []
        before = before or {}
        found: list[Item] = []
        for id in before.keys() | present.keys():
            queue = id if name == "queue" else (present.get(id) or before[id]).get("queue")
            if id not in present:
                found.append((name, {key: id, "removed": True}, queue, None, None))
                continue
            was, now = before.get(id, {}), present[id]
            differs = {field: value for field, value in now.items() if value != was.get(field, _NOTHING)}
            changed = {field: value for field, value in differs.items() if field not in _HIDDEN}
            if changed.keys() - _ALWAYS_MOVING:
                found.append((name, {key: id, **changed}, queue, None, None))
        return found


_NOTHING: Final = object()
