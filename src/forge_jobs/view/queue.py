"""Queues for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from forge_jobs.runtime.shares import unassigned
from forge_jobs.storage.types.queue import QueueCounts, QueueSettings
from forge_jobs.storage.types.share import Share


def queue_view(queue: QueueSettings) -> dict[str, Any]:
    """A queue's settings for programs."""
    return dataclasses.asdict(queue)


def counts_view(counts: QueueCounts) -> dict[str, Any]:
    """A queue's jobs by status for programs; `pending` is ready and scheduled together."""
    return {"pending": counts.ready + counts.scheduled, **dataclasses.asdict(counts)}


def shares_view(queue: QueueSettings, shares: Sequence[Share]) -> dict[str, Any]:
    """Who has which part of a queue's total, for programs; `shares` are of live processes."""
    own = [share for share in shares if share.queue == queue.name]
    return {
        "shares": [{"host_id": one.host_id, "share": one.share, "open": one.open} for one in own],
        "unassigned": unassigned(queue, own),
    }
