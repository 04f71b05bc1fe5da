"""Queues as they are shown: with their settings, jobs, slots, and what nobody serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forge_jobs.api.etag import QUEUE
from forge_jobs.runtime.unserved import find_unserved
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.storage.types.queue import QueueCounts
from forge_jobs.view.queue import counts_view, queue_view, shares_view


async def describe_every_queue(storage: Storage, processes: Sequence[ProcessRow]) -> list[dict[str, Any]]:
    """Every queue, by name."""
    live = [row.info for row in processes if row.live]
    hosts = {info.host_id for info in live}
    shares = [share for share in await storage.shares.list() if share.host_id in hosts]
    counts = await storage.queues.recent_counts()
    unserved = await find_unserved(storage, processes, await storage.jobs.recent_waiting_kinds())
    described = []
    for queue in await storage.queues.list():
        lacking = [one for one in unserved if one.queue == queue.name]
        own = counts.get(queue.name, QueueCounts())
        described.append(
            {
                **queue_view(queue),
                "etag": QUEUE.tag(queue),
                "counts": counts_view(own),
                **shares_view(queue, shares),
                "slots_open": sum(info.slots.get(queue.name, 0) for info in live),
                "slots_busy": own.in_progress,
                "unserved": any(one.kind is None for one in lacking),
                "unserved_kinds": [one.kind for one in lacking if one.kind is not None],
            }
        )
    return described
