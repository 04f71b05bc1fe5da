"""What a server tells of itself becomes metrics of the store."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import closing

import psycopg
import pytest

from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.runtime.loops.metrics import store_gauges
from forge_jobs.testing.cluster import until


@pytest.mark.slow  # a server tells of dead rows every ten seconds
async def test_an_old_transaction_and_dead_rows_show(database: str) -> None:
    async with open_storage(database) as storage:

        async def value(name: str) -> float:
            mean = store_gauges(await storage.maintenance.status())[name].mean
            assert mean is not None
            return mean

        names = set(store_gauges(await storage.maintenance.status()))
        assert names == {
            "db_size_bytes",
            "server_connections",
            "our_connections",
            "active_connections",
            "connections_used_pct",
            "dead_tuples",
            "oldest_transaction_s",
            "notify_queue_pct",
        }
        added = [await storage.jobs.enqueue(EnqueueRequest("brief", queue="default")) for _ in range(20)]
        with closing(psycopg.connect(database)) as other:
            other.execute("SELECT 1")  # its transaction stays open, and keeps dead rows from being cleared
            for outcome in added:
                await storage.jobs.delete(outcome.id)
            await until(lambda: at_least(value("dead_tuples"), 20), within_s=10, what="dead rows in the statistics")
            await until(lambda: at_least(value("oldest_transaction_s"), 0.3), what="an old transaction")
        await until(lambda: at_least(value("oldest_transaction_s"), 0.3, but_not=True), what="no old transaction")


async def at_least(value: Awaitable[float], bound: float, *, but_not: bool = False) -> bool:
    return (await value >= bound) is not but_not
