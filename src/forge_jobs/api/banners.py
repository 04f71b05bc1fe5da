"""What a person must look at."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from forge_jobs.clock import from_us
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow, ProcessState

LOOPS: Final = ("cleanup", "cron", "metrics", "rebalance")
"""Background loops that one process of the cluster runs, and holds a lease for."""
LOOP_PATIENCE: Final = timedelta(minutes=11)
"""A worker asks for a lease when the loop is due, for cleanup every five minutes. Twice that and some, and something is
wrong."""
DISK_LOOK_S: Final = 10.0
"""What the store says of itself is believed for so long: on PostgreSQL asking opens a connection."""


class Banners:
    """Looks at a store for what is wrong with it, its queues and its workers."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._free_pct: float | None = None
        self._next_disk = 0.0

    async def look(self, queues: Sequence[Mapping[str, Any]], processes: Sequence[ProcessRow]) -> list[dict[str, Any]]:
        """What is wrong now, worst first; `queues` are described as they are shown. The id of each is its own for as
        long as it is there."""
        found = [_unserved(queue) for queue in queues if queue["unserved"]]
        found += [_unserved_kind(queue, kind) for queue in queues for kind in queue["unserved_kinds"]]
        found += [_unassigned(queue) for queue in queues if queue["unassigned"]]
        live = [row for row in processes if row.live]
        found += [_fenced(row) for row in live if row.info.state is ProcessState.FENCED]
        if live:
            found += await self._dead_loops(live)
            if not self._storage.wakes_proven:
                text = "wakes of other processes do not arrive here; workers poll, so jobs start a little later"
                found.append(_banner("poll_mode", "warning", text))
        free = await self._free_disk_pct()
        if free is not None and free < 10:
            found.append(_banner("disk", "error", f"{free:g} % of the store's disk are free"))
        return sorted(found, key=lambda one: (one["level"], one["kind"]))

    async def _dead_loops(self, live: Sequence[ProcessRow]) -> list[dict[str, Any]]:
        now: datetime = from_us(self._storage.clock.now_us())
        if not any(now - row.started_at > LOOP_PATIENCE for row in live):
            return []
        held = {lease.name for lease in await self._storage.leases.list()}
        return [
            _banner("dead_loop", "error", f"no live worker runs the background loop {loop}", about=loop)
            for loop in LOOPS
            if loop not in held
        ]

    async def _free_disk_pct(self) -> float | None:
        if time.monotonic() >= self._next_disk:
            self._next_disk = time.monotonic() + DISK_LOOK_S
            self._free_pct = (await self._storage.maintenance.status()).get("free_disk_pct")
        return self._free_pct


def _unserved(queue: Mapping[str, Any]) -> dict[str, Any]:
    waiting = queue["counts"]["pending"] + queue["counts"]["failed"]
    text = f"queue {queue['name']} has no live worker; {waiting} job{'s wait' if waiting != 1 else ' waits'}"
    return _banner("unserved", "error", text, queue=queue["name"])


def _unserved_kind(queue: Mapping[str, Any], kind: str) -> dict[str, Any]:
    text = f"kind {kind} of queue {queue['name']} has no handler in any live worker"
    return _banner("unserved_kind", "error", text, queue=queue["name"], about=kind)


def _unassigned(queue: Mapping[str, Any]) -> dict[str, Any]:
    text = f"queue {queue['name']}: {queue['unassigned']} of its workers find no process"
    return _banner("unassigned", "warning", text, queue=queue["name"])


def _fenced(row: ProcessRow) -> dict[str, Any]:
    info = row.info
    text = f"worker {info.label or info.host_id} does not reach the store and has stopped claiming"
    return _banner("fenced", "error", text, worker=info.host_id)


def _banner(
    kind: str, level: str, text: str, *, queue: str | None = None, worker: str | None = None, about: str | None = None
) -> dict[str, Any]:
    id = "/".join(part for part in (kind, queue, worker, about) if part is not None)
    return {"id": id, "kind": kind, "level": level, "text": text, "queue": queue, "worker": worker}
