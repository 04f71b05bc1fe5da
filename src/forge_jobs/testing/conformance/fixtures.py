"""The fixtures of the suite. A backend under test adds one of its own, `backend`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import pytest_asyncio

from forge_jobs.clock import ManualClock
from forge_jobs.storage.protocol import Heart, Storage
from forge_jobs.storage.types.process import BeatAnswer, Claimed, ProcessInfo
from forge_jobs.testing.conformance.backend import Backend


@pytest.fixture
def clock() -> ManualClock:
    """The store's clock, moved by the test."""
    return ManualClock()


@pytest_asyncio.fixture
async def storage(backend: Backend, clock: ManualClock) -> AsyncIterator[Storage]:
    """A new, empty store."""
    async with backend.open(clock) as opened:
        yield opened


@pytest_asyncio.fixture
async def neighbour(backend: Backend, storage: Storage, clock: ManualClock) -> AsyncIterator[Storage]:
    """The same store as `storage`, opened once more, as another process has it."""
    async with backend.reopen(clock) as opened:
        yield opened


@pytest.fixture
def beater(storage: Storage) -> Iterator[Beater]:
    """A heart of the store on a thread of its own."""
    with Beater(storage) as beating:
        yield beating


class Beater:
    """A heart that is opened, beats and is closed on one thread, as in a worker process."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beater")
        self._heart: Heart | None = None

    def __enter__(self) -> Beater:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def beat(self, process: ProcessInfo, *claims: Claimed) -> BeatAnswer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._beat, process, claims)

    def beat_and_wait(self, process: ProcessInfo, *claims: Claimed) -> BeatAnswer:
        """The same, for callers without an event loop."""
        return self._thread.submit(self._beat, process, claims).result()

    def close(self) -> None:
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _beat(self, process: ProcessInfo, claims: tuple[Claimed, ...]) -> BeatAnswer:
        if self._heart is None:
            self._heart = self._storage.processes.open_heart(timedelta(seconds=5))
        return self._heart.beat(process, claims)

    def _close(self) -> None:
        if self._heart is not None:
            self._heart.close()
