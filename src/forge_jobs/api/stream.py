"""Live news for browsers: what changed, by one look at the store for all listeners."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from forge_jobs.api.answer import encode
from forge_jobs.api.banners import Banners
from forge_jobs.api.news import Snapshots
from forge_jobs.api.problem import Problem
from forge_jobs.ids import new_id
from forge_jobs.storage.error import StorageError
from forge_jobs.storage.protocol import Storage

log = logging.getLogger("forge_jobs.api")

LOOK_S: Final = 0.5
"""How often the store is asked for news while somebody listens."""
FRAME_S: Final = 0.25
"""A listener is sent at most one frame in this time."""
REPLAY: Final = 1_000
WAITING: Final = 256
"""A listener that has so many events waiting is too slow, and is dropped."""
HEARTBEAT_S: Final = 15.0
TICK_S: Final = 5.0
RECHECK_S: Final = 60.0
"""A listener whose token ended is found out after this long."""


@dataclass(frozen=True, slots=True)
class News:
    """One event. `queue`, `kind` and `job` are what listeners filter by."""

    seq: int
    name: str
    data: dict[str, Any]
    queue: str | None = None
    kind: str | None = None
    job: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a listener wants to hear of. `own` are the only queues that it may see."""

    queue: str | None = None
    kind: str | None = None
    job: str | None = None
    own: tuple[str, ...] | None = None

    def fits(self, news: News) -> bool:
        if news.queue is not None and self.own is not None and news.queue not in self.own:
            return False
        pairs = ((self.queue, news.queue), (self.kind, news.kind), (self.job, news.job))
        return all(asked is None or said is None or asked == said for asked, said in pairs)


@dataclass(eq=False, slots=True)
class Listener:
    """One stream."""

    wanted: Wanted
    waiting: deque[News] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: bool = False

    def offer(self, news: News) -> None:
        if not self.wanted.fits(news):
            return
        if len(self.waiting) >= WAITING:
            self.dropped = True
        else:
            self.waiting.append(news)
        self.arrived.set()


class Hub:
    """Looks at the store while somebody listens, and tells all listeners."""

    def __init__(self, storage: Storage, banners: Banners, streams: int, stale_after: timedelta) -> None:
        self._storage = storage
        self._banners = banners
        self._streams = streams
        self._stale_after = stale_after
        self._boot = new_id()
        self._seq = 0
        self._recent: deque[News] = deque(maxlen=REPLAY)
        self._listeners: set[Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        self._snapshots: Snapshots | None = None
        self._closed = False

    def listen(self, wanted: Wanted, last_event_id: str | None) -> tuple[Listener, bool]:
        """A new listener with what it missed, and whether that is all of it.

        Raises:
            Problem: there are too many.
        """
        if len(self._listeners) >= self._streams or self._closed:
            raise Problem("rate_limited", f"{self._streams} streams are open already", headers={"Retry-After": "15"})
        listener = Listener(wanted)
        complete = self._replay(listener, last_event_id)
        for name, data, queue, kind, job in () if self._snapshots is None else self._snapshots.present_banners():
            listener.offer(News(self._seq, name, data, queue, kind, job))
        self._listeners.add(listener)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="forge-api-news")
        return listener, complete

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if not self._listeners and self._looking is not None:
            self._looking.cancel()
            self._looking = self._snapshots = None
            self._seq += 1  # a number without news: whoever comes back may have missed something meanwhile

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for listener in self._listeners:
            listener.dropped = True
            listener.arrived.set()
        if self._looking is not None:
            self._looking.cancel()

    async def frames(self, listener: Listener, complete: bool, still_admitted: Any) -> AsyncIterator[bytes]:
        """What is sent to one listener, until it is too slow, is not admitted any more, or the server ends."""
        checked = beaten = time.monotonic()
        yield b"retry: 2000\n\n" if complete else _frame("resync", self._id(self._seq), {})
        while not listener.dropped:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await listener.arrived.wait()
            listener.arrived.clear()
            now = time.monotonic()
            if now - checked >= RECHECK_S:
                checked = now
                if not await still_admitted():
                    return
            if listener.waiting:
                taken = [listener.waiting.popleft() for _ in range(len(listener.waiting))]
                yield self._coalesced(taken)
                beaten = now
            elif now - beaten >= HEARTBEAT_S:
                yield b": still here\n\n"
                beaten = now
            await asyncio.sleep(FRAME_S)

    def _coalesced(self, taken: list[News]) -> bytes:
        """One frame for each name, with everything that happened under it."""
        frames = []
        for name in dict.fromkeys(news.name for news in taken):
            own = [news for news in taken if news.name == name]
            frames.append(_frame(name, self._id(taken[-1].seq), {"items": [news.data for news in own]}))
        return b"".join(frames)

    def _replay(self, listener: Listener, last_event_id: str | None) -> bool:
        if last_event_id is None:
            return True
        boot, _, number = last_event_id.partition("-")
        if boot != self._boot or not (number.isascii() and number.isdigit() and len(number) < 18):
            return False
        seq = int(number)
        missed = [news for news in self._recent if news.seq > seq]
        if seq > self._seq or len(missed) < self._seq - seq:
            return False
        for news in missed[-WAITING:]:
            listener.offer(news)
        return len(missed) <= WAITING

    def _id(self, seq: int) -> str:
        return f"{self._boot}-{seq}"

    async def _look(self) -> None:
        snapshots = self._snapshots = Snapshots(self._storage, self._banners, self._stale_after)
        next_tick = 0.0
        while True:
            try:
                for name, data, queue, kind, job in await snapshots.news():
                    self._tell(name, data, queue, kind, job)
            except StorageError as error:
                log.warning("news_fault error=%s", error)
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + TICK_S
                self._tell("tick", {"at": snapshots.now}, None, None, None)
            await asyncio.sleep(LOOK_S)

    def _tell(self, name: str, data: dict[str, Any], queue: str | None, kind: str | None, job: str | None) -> None:
        self._seq += 1
        news = News(self._seq, name, data, queue, kind, job)
        self._recent.append(news)
        for listener in self._listeners:
            listener.offer(news)


def _frame(name: str, id: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (name.encode(), id.encode(), encode(data))
