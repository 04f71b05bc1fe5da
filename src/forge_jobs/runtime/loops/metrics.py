"""Rolls events up into metrics by minute, keeps count of finished jobs and records what the store uses, in one process
of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.storage.types.metric import Summary

AS_NAMED: Final = (
    "wal_bytes",
    "checkpoint_age_s",
    "free_disk_pct",
    "server_connections",
    "our_connections",
    "active_connections",
    "dead_tuples",
    "oldest_transaction_s",
    "notify_queue_pct",
)
"""What the status of a store calls as its metric is called."""


async def tick(env: RuntimeEnv) -> None:
    """One round. The rollup comes first: it does not wait for the gauges."""
    await env.storage.metrics.rollup()
    await env.storage.queues.fold_counts()
    await env.storage.metrics.record(store_gauges(await env.storage.maintenance.status()))


def store_gauges(status: Mapping[str, Any]) -> dict[str, Summary]:
    """The metrics of a store that its status knows."""
    found = {
        name: status.get(key)
        for name, key in (
            ("db_size_bytes", "db_size_bytes" if "db_size_bytes" in status else "jobs_bytes"),
            *((name, name) for name in AS_NAMED),
        )
    }
    if status.get("max_connections"):
        found["connections_used_pct"] = 100 * status["server_connections"] / status["max_connections"]
    return {name: Summary.of(value) for name, value in found.items() if value is not None}


LOOP = Loop("metrics", lambda env: env.config.metrics_s, tick, leased=True)
