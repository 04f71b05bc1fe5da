"""Worker processes for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_jobs.runtime.unserved import Unserved
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.storage.types.share import Share

Shares = Mapping[tuple[str, str], Share]
"""By queue and host id."""


def process_view(row: ProcessRow, shares: Shares) -> dict[str, Any]:
    """A worker process for programs. `shares` has the queues of which it was given a part of the total."""
    info = row.info
    own = {queue: shares.get((queue, info.host_id)) for queue in info.queues}
    return {
        "host_id": info.host_id,
        "worker": info.label or info.host_id,
        "label": info.label,
        "host_name": info.host_name,
        "pid": info.pid,
        "version": info.version,
        "state": str(info.state) if row.live else "gone",
        "live": row.live,
        "quiet": info.quiet,
        "queues": list(info.queues),
        "kinds": list(info.kinds),
        "slots": {queue: open_slots(row, queue, shares) for queue in info.queues},
        "shares": {queue: share.share for queue, share in own.items() if share and share.share is not None},
        "offered": info.offered,
        "running": info.running,
        "loop_lag_ms": info.loop_lag_ms,
        "abandoned_threads": info.abandoned_threads,
        "started_at": row.started_at,
        "heartbeat_at": row.heartbeat_at,
    }


def open_slots(row: ProcessRow, queue: str, shares: Shares) -> int:
    """The slots that a process has open, as it told the store last."""
    share = shares.get((queue, row.info.host_id))
    return row.info.slots.get(queue, 0) if share is None else share.open


def unserved_in_words(one: Unserved) -> str:
    """One thing that nobody serves, in words."""
    jobs = "1 job waits" if one.jobs == 1 else f"{one.jobs} jobs wait"
    if one.kind is None:
        return f"queue {one.queue} has no live worker; {jobs}"
    return f"kind {one.kind} of queue {one.queue} has no handler in any live worker; {jobs}"
