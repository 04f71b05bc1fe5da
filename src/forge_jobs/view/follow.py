"""Following events as they happen."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from forge_jobs.clock import from_us
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import JobEvent

LATE: Final = timedelta(seconds=15)
"""Processes write their events every few seconds: ones this old may still turn up."""
PAGE: Final = 5_000


class Follower:
    """Events at or after `start`, each once, though they are written late and out of order."""

    def __init__(self, storage: Storage, start: datetime) -> None:
        self._storage = storage
        self._start = start
        self._seen: Counter[JobEvent] = Counter()

    async def new(self) -> list[JobEvent]:
        """What has turned up since the last call, oldest first."""
        now = from_us(self._storage.clock.now_us())
        since = max(self._start, now - LATE)
        minute = now.replace(second=0, microsecond=0)
        found = Counter(await self._between(since, now + timedelta(seconds=1)))
        for counted in (minute - timedelta(minutes=1), minute):  # counts stand at the start of their minute
            if counted >= self._start.replace(second=0, microsecond=0) and counted < since:
                events = await self._between(counted, counted + timedelta(microseconds=1))
                found.update(event for event in events if event.count > 1)
        fresh = found - self._seen
        self._seen = found
        return sorted(fresh.elements(), key=lambda event: event.at_us)

    async def _between(self, since: datetime, until: datetime) -> list[JobEvent]:
        found: list[JobEvent] = []
        while True:
            page = await self._storage.events.timeline(since, until, limit=PAGE)
            if len(page) < PAGE:
                return [*found, *page]
            last = page[-1].at_us
            whole = [event for event in page if event.at_us < last]  # the last instant may go on behind the page
            found.extend(whole or page)
            since = from_us(last if whole else last + 1)
