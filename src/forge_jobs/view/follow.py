"""Following events and log lines as they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, TypeAlias, TypeVar

from forge_jobs.clock import from_us
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.log import LogLine

LATE: Final = timedelta(seconds=15)
"""Processes write their events and lines every few seconds: ones this old may still turn up."""
PAGE: Final = 5_000

T = TypeVar("T", JobEvent, LogLine)
Read: TypeAlias = Callable[[datetime, datetime, int], Awaitable[list[T]]]


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
        found = Counter(await _between(self._read, since, now + timedelta(seconds=1)))
        for counted in (minute - timedelta(minutes=1), minute):  # counts stand at the start of their minute
            if counted >= self._start.replace(second=0, microsecond=0) and counted < since:
                events = await _between(self._read, counted, counted + timedelta(microseconds=1))
                found.update(event for event in events if event.count > 1)
        fresh = found - self._seen
        self._seen = found
        return sorted(fresh.elements(), key=lambda event: event.at_us)

    async def _read(self, since: datetime, until: datetime, limit: int) -> list[JobEvent]:
        return await self._storage.events.timeline(since, until, limit=limit)


class LineFollower:
    """The same for log lines."""

    def __init__(self, storage: Storage, start: datetime) -> None:
        self._storage = storage
        self._start = start
        self._seen: set[tuple[str, int]] = set()

    async def new(self) -> list[LogLine]:
        """What has turned up since the last call, oldest first."""
        now = from_us(self._storage.clock.now_us())
        found = await _between(self._read, max(self._start, now - LATE), now + timedelta(seconds=1))
        fresh = [line for line in found if (line.job_id, line.seq) not in self._seen]
        self._seen = {(line.job_id, line.seq) for line in found}
        return fresh

    async def _read(self, since: datetime, until: datetime, limit: int) -> list[LogLine]:
        return await self._storage.logs.between(since, until, limit=limit)


async def _between(read: Read[T], since: datetime, until: datetime) -> list[T]:
    """Page after page."""
    found: list[T] = []
    while True:
        page: list[T] = await read(since, until, PAGE)
        if len(page) < PAGE:
            return found + page
        last = page[-1].at_us
        whole = [one for one in page if one.at_us < last]  # the last instant may go on behind the page
        found.extend(whole or page)
        since = from_us(last if whole else last + 1)
