"""What the doctor found, kept for a moment, so that many pages at once cost the store one look."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from forge_jobs.clock import from_us
from forge_jobs.storage.protocol import Storage
from forge_jobs.view.doctor import Check, examine

CACHED_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found, and when."""

    at: datetime
    checks: list[Check]


class Doctor:
    """Examines a store and its workers, at most every ten seconds. A failure to look is not kept."""

    def __init__(self, storage: Storage, stale_after: timedelta) -> None:
        self._storage = storage
        self._stale_after = stale_after
        self._looking = asyncio.Lock()
        self._last: Findings | None = None
        self._due = 0.0

    async def findings(self) -> Findings:
        async with self._looking:
            if self._last is None or time.monotonic() >= self._due:
                at = from_us(self._storage.clock.now_us())
                processes = await self._storage.processes.list(self._stale_after)
                self._last = Findings(at, await examine(self._storage, processes))
                self._due = time.monotonic() + CACHED_S
            return self._last
