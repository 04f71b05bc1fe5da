"""What `/metrics` answers: the store's gauges, read at most every few seconds, and this process's own numbers."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Final

from forge_jobs.observe import tell
from forge_jobs.prometheus import families
from forge_jobs.prometheus.families import Samples
from forge_jobs.prometheus.store_gauges import server_gauges, store_gauges
from forge_jobs.storage.protocol import STALE_AFTER, Storage

log = logging.getLogger("forge_jobs.prometheus")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
CACHED_S: Final = 5.0
"""The store is asked that often at most, however many ask us."""
SERVER_CACHED_S: Final = 60.0
"""The same of what costs a connection, or a look at the file."""
LEAST_REST: Final = 20
"""A read that took long is not repeated for so many times as long, so that asking never takes more than a
twentieth of the store's time."""
PATIENCE_S: Final = 4.0
"""A scraper gives up after 10 s; before that it gets at least what this process knows itself."""


class Exposition:
    """Renders `/metrics` of a store and of what this process does with it."""

    def __init__(self, storage: Storage, *, stale_after: timedelta = STALE_AFTER) -> None:
        self._storage = storage
        self._stale_after = stale_after
        self._gauges: Samples = {}
        self._server: Samples = {}
        self._up = False
        self._gauges_due = self._server_due = 0.0
        self._reading: asyncio.Task[None] | None = None

    async def render(self) -> bytes:
        """The text, of `CONTENT_TYPE`. While the store does not answer, without its gauges and with `store_up` 0.

        Callers at the same time share one read of the store.
        """
        if time.monotonic() >= self._gauges_due:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.get_running_loop().create_task(self._read(), name="forge-metrics-read")
            await asyncio.wait([self._reading], timeout=PATIENCE_S)
            if not self._reading.done():
                self._up = False
        return self.text()

    def text(self) -> bytes:
        """What is known without asking the store anew. From any thread."""
        gauges: dict[str, object] = {"store_up": [((), float(self._up))]}
        gauges["listener_up"] = [((), float(self._storage.wakes_proven))]
        return families.text({**self._gauges, **self._server, **gauges}, self._storage.observer)  # type: ignore[dict-item]

    async def close(self) -> None:
        """End a read that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(2 * PATIENCE_S):
                self._gauges = await store_gauges(self._storage, self._stale_after)
                if began >= self._server_due:
                    self._server = server_gauges(await self._storage.maintenance.status())
                    self._server_due = time.monotonic() + SERVER_CACHED_S
            self._up = True
        except Exception as error:  # stale numbers would look like good news
            tell(log, logging.WARNING, "metrics_unread", error=f"{type(error).__name__}: {error}")
            self._gauges, self._server, self._up, self._server_due = {}, {}, False, 0.0
        now = time.monotonic()
        self._gauges_due = now + max(CACHED_S, LEAST_REST * (now - began))
