"""What a person must look at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from forge_jobs.api.call import Call
from forge_jobs.storage.types.process import ProcessState

LOOPS: Final = ("cleanup", "cron", "metrics", "rebalance")
"""Background loops that one process of the cluster runs, and holds a lease for."""
LOOP_PATIENCE: Final = timedelta(minutes=11)
"""A worker asks for a lease when the loop is due, for cleanup every five minutes. Twice that and some, and something is
wrong."""


async def banners(call: Call, queues: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is wrong with these queues, the workers and the store, worst first."""
    found = [_unserved(queue) for queue in queues if queue["unserved"]]
    found += [_unserved_kind(queue, kind) for queue in queues for kind in queue["unserved_kinds"]]
    rows = await call.processes()
    live = [row.info for row in rows if row.live]
    for info in live:
        if info.state is ProcessState.FENCED:
            found.append(
                _banner(
                    "fenced",
                    "error",
                    f"worker {info.label or info.host_id} does not reach the store and has stopped claiming",
                    worker=info.host_id,
                )
            )
    for queue in queues:
        if queue["unassigned"]:
            text = f"queue {queue['name']}: {queue['unassigned']} of its workers find no process"
            found.append(_banner("unassigned", "warning", text, queue=queue["name"]))
    if live:
        held = {lease.name for lease in await call.storage.leases.list()}
        settled = any(row.live and call.now - row.started_at > LOOP_PATIENCE for row in rows)
        for loop in LOOPS:
            if settled and loop not in held:
                found.append(_banner("dead_loop", "error", f"no live worker runs the background loop {loop}"))
        if not call.storage.wakes_proven:
            text = "wakes of other processes do not arrive here; workers poll, so jobs start a little later"
            found.append(_banner("poll_mode", "warning", text))
    status = await call.storage.maintenance.status()
    free = status.get("free_disk_pct")
    if free is not None and free < 10:
        found.append(_banner("disk", "error", f"{free:g} % of the store's disk are free"))
    return sorted(found, key=lambda one: (one["level"], one["kind"]))


def _unserved(queue: dict[str, Any]) -> dict[str, Any]:
    waiting = queue["counts"]["pending"] + queue["counts"]["failed"]
    text = f"queue {queue['name']} has no live worker; {waiting} job{'s wait' if waiting != 1 else ' waits'}"
    return _banner("unserved", "error", text, queue=queue["name"])


def _unserved_kind(queue: dict[str, Any], kind: str) -> dict[str, Any]:
    text = f"kind {kind} of queue {queue['name']} has no handler in any live worker"
    return _banner("unserved_kind", "error", text, queue=queue["name"])


def _banner(kind: str, level: str, text: str, *, queue: str | None = None, worker: str | None = None) -> dict[str, Any]:
    return {"kind": kind, "level": level, "text": text, "queue": queue, "worker": worker}
