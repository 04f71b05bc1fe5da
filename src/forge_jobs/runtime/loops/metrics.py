"""Rolls events up into metrics by minute, keeps count of finished jobs and records what the store uses, in one process
of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.storage.types.metric import Summary


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
            ("wal_bytes", "wal_bytes"),
            ("free_disk_pct", "free_disk_pct"),
            ("server_connections", "server_connections"),
            ("our_connections", "our_connections"),
        )
    }
    if status.get("max_connections"):
        found["connections_used_pct"] = 100 * status["server_connections"] / status["max_connections"]
    return {name: Summary.of(value) for name, value in found.items() if value is not None}


LOOP = Loop("metrics", lambda env: env.config.metrics_s, tick, leased=True)
