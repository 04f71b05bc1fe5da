"""The gauges of a store, of all its processes together: from counts that are kept, never by a look at every job."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from forge_jobs.clock import from_us
from forge_jobs.observe import KINDS, OTHER
from forge_jobs.prometheus.families import Labels, Samples
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow, ProcessState
from forge_jobs.storage.types.queue import QueueCounts, QueueSettings

SCOPES: Final = 500
"""Rate limits beyond these are left out."""
Found: TypeAlias = "defaultdict[str, list[tuple[Labels, float]]]"


async def store_gauges(storage: Storage, stale_after: timedelta) -> Samples:
    """What the store tells now. Costs what waits and runs, not what is kept."""
    found: Found = defaultdict(list)
    queues = await storage.queues.list()
    processes = [row for row in await storage.processes.list(stale_after) if row.live]
    counts = await storage.queues.recent_counts()
    kinds = await storage.jobs.kinds_that_wait()
    now_us = storage.clock.now_us()
    slots, busy = _slots(processes)
    for settings in queues:
        name = settings.name
        _of_queue(found, settings, counts.get(name, QueueCounts()), now_us)
        found["slots_open"].append(((name,), slots[name]))
        found["slots_busy"].append(((name,), busy[name]))
    _unserved(found, queues, kinds, processes)
    _workers(found, processes, now_us)
    for limit in await storage.rate_limits.list():
        if limit.template is None and len(found["rate_tokens"]) < SCOPES:
            found["rate_tokens"].append(((limit.scope,), limit.tokens))
    for lease in await storage.leases.list():
        found["leader"].append(((lease.name, lease.holder), 1))
    return found


def server_gauges(status: Mapping[str, Any]) -> Samples:
    """What the status of a store tells of its file or server."""
    found: Found = defaultdict(list)
    size = "db_size_bytes" if "db_size_bytes" in status else "jobs_bytes"
    for name, key in (("wal_bytes", "wal_bytes"), ("db_size_bytes", size), ("dead_tuples", "dead_tuples")):
        if status.get(key) is not None:
            found[name].append(((), float(status[key])))
    for state, key in (
        ("ours", "our_connections"),
        ("active", "active_connections"),
        ("all", "server_connections"),
        ("max", "max_connections"),
    ):
        if status.get(key) is not None:
            found["db_connections"].append(((state,), float(status[key])))
    if "clock_ahead_of_host_ms" in status:
        found["clock_offset_seconds"].append(((), status["clock_ahead_of_host_ms"] / 1000))
    return found


def _of_queue(found: Found, settings: QueueSettings, counts: QueueCounts, now_us: int) -> None:
    labels = (settings.name,)
    now = from_us(now_us)
    oldest = counts.oldest_ready_at
    values = {
        "pending": counts.ready,
        "scheduled": counts.scheduled,
        "in_progress": counts.in_progress,
        "failed": counts.failed,
        "dead": counts.dead,
        "done": counts.done,
        "oldest_ready_age_seconds": 0.0 if oldest is None else max((now - oldest).total_seconds(), 0.0),
        "paused": settings.paused,
        "throttled": settings.throttled_until is not None and settings.throttled_until > now,
    }
    if settings.max_workers is not None:
        values["max_workers"] = settings.max_workers
    for name, value in values.items():
        found[name].append((labels, float(value)))


def _slots(processes: Sequence[ProcessRow]) -> tuple[Counter[str], Counter[str]]:
    """Open and busy slots by queue."""
    slots, busy = Counter[str](), Counter[str]()
    for row in processes:
        slots.update(row.info.slots)
        busy.update(process_id.rsplit("-", 2)[0] for process_id in row.info.running)
    return slots, busy


def _unserved(
    found: Found,
    queues: Sequence[QueueSettings],
    kinds: Mapping[str, Sequence[str]],
    processes: Sequence[ProcessRow],
) -> None:
    """As `find_unserved` sees it, without how many jobs that are."""
    others: set[str] = set()
    for settings in queues:
        name, waiting = settings.name, kinds.get(settings.name, ())
        serving = [row.info for row in processes if row.info.slots.get(name, 0) > 0]
        matters = not settings.paused and bool(waiting or settings.max_workers)
        found["unserved"].append(((name,), float(matters and not serving)))
        if settings.paused or not serving:
            continue
        known = {kind for info in serving for kind in info.kinds}
        for kind in waiting:
            if kind not in known:
                if len(found["unserved_kind"]) < KINDS:
                    found["unserved_kind"].append(((name, kind), 1))
                else:
                    others.add(name)
    found["unserved_kind"] += [((name, OTHER), 1) for name in sorted(others)]


def _workers(found: Found, processes: Sequence[ProcessRow], now_us: int) -> None:
    for row in processes:
        info = row.info
        worker = (info.host_id, info.label or "")
        found["worker_info"].append(((*worker, info.host_name, info.version), 1))
        found["worker_fenced"].append((worker, float(info.state is ProcessState.FENCED)))
        found["abandoned_threads"].append((worker, float(getattr(info, "abandoned_threads", 0))))
        for loop, last_us in info.loops.items():
            found["loop_last_success_age_seconds"].append(((info.host_id, loop), max(now_us - last_us, 0) / 1e6))
