"""A background loop that the cluster needs only once runs in the process that holds its lease."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.storage.types.lease import Lease

log = logging.getLogger("forge_jobs.lease")

RENEWALS: Final = 3
"""A lease is renewed when a third of its time is over, so that one lost renewal or two do not cost it."""


class Post:
    """This process's claim to one lease. Nobody is sure to be alone: the holder may stand still and wake up late."""

    def __init__(self, env: RuntimeEnv, name: str) -> None:
        self._env = env
        self._name = name
        self._ttl = timedelta(seconds=env.config.lease_ttl_s)
        self._renewed_us = 0
        self.lease: Lease | None = None
        """What this process believes to hold."""

    @property
    def renewal_s(self) -> float:
        """How often it must be held to stay held."""
        return self._ttl.total_seconds() / RENEWALS

    async def hold(self) -> bool:
        """Whether the lease is this process's now. Taken if it is free; renewed, and so asked after, when that is due.

        Raises:
            StorageError: the store did not say. What was held may be held still.
        """
        began = self._env.clock.elapsed_us()
        if self.lease is None:
            self.lease = await self._env.storage.leases.take(self._name, self._env.host_id, self._ttl)
            if self.lease is not None:
                self._env.observer.happened("lease_gained", lease=self._name)
                log.info("lease_gained lease=%s token=%d", self._name, self.lease.token)
        elif began - self._renewed_us < self.renewal_s * 1e6:
            return True
        else:
            was, self.lease = self.lease, await self._env.storage.leases.renew(self.lease, self._ttl)
            if self.lease is None:
                self._env.observer.happened("lease_lost", lease=self._name)
                log.warning("lease_lost lease=%s token=%d", self._name, was.token)
        self._renewed_us = began
        return self.lease is not None
