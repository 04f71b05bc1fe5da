"""What a backend shows of itself to be tested: how to make a new store, and how to open it once more."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from forge_jobs.clock import Clock
from forge_jobs.storage.protocol import Storage


class Backend(Protocol):
    """One storage backend under test. It reads time from the clock it is given and from nowhere else."""

    @property
    def name(self) -> str:
        """What to call it, e.g. `sqlite`."""

    @property
    def one_host(self) -> bool:
        """Whether all its processes share one host, so that it measures silence with that host's boot-time clock.

        A backend that is not takes `TestClockOfOneHost` out of the suite: its server's clock is the only one, and must
        not be set back or forward by more than the stale threshold.
        """

    def open(self, clock: Clock) -> AbstractAsyncContextManager[Storage]:
        """A new, empty store. Every call makes another one."""

    def reopen(self, clock: Clock) -> AbstractAsyncContextManager[Storage]:
        """The store that the last `open` made, once more, as a second process would: the first may still be open."""
