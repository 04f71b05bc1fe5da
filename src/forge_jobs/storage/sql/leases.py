"""The lease store over a driver."""

from __future__ import annotations

from datetime import timedelta

from forge_jobs.clock import duration_us, from_us
from forge_jobs.names import check_name
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Tx
from forge_jobs.storage.types.lease import Lease

LIST_LEASES = statement("list_leases")
TAKE_LEASE = statement("take_lease")
RENEW_LEASE = statement("renew_lease")
RELEASE_LEASE = statement("release_lease")


class SqlLeases:
    """Implements `LeaseStore`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def take(self, name: str, holder: str, ttl: timedelta) -> Lease | None:
        check_name(name, "lease")
        now = await self._driver.read(lambda tx: _held(tx, name))
        if now is not None and now.holder != holder:
            return None  # those who wait for a lease only read

        def operation(tx: Tx) -> Lease | None:
            taken = tx.change(TAKE_LEASE, {"name": name, "holder": holder, "ttl": duration_us(ttl)})
            return _held(tx, name) if taken else None

        return await self._driver.write(operation, label="lease")

    async def renew(self, lease: Lease, ttl: timedelta) -> Lease | None:
        params = {"name": lease.name, "holder": lease.holder, "token": lease.token, "ttl": duration_us(ttl)}

        def operation(tx: Tx) -> Lease | None:
            return _held(tx, lease.name) if tx.change(RENEW_LEASE, params) else None

        return await self._driver.write(operation, label="lease")

    async def release(self, lease: Lease) -> bool:
        params = {"name": lease.name, "holder": lease.holder, "token": lease.token}
        return await self._driver.write(lambda tx: tx.change(RELEASE_LEASE, params) == 1, label="lease")

    async def list(self) -> list[Lease]:
        return await self._driver.read(_all_held)


def _held(tx: Tx, name: str) -> Lease | None:
    return next((lease for lease in _all_held(tx) if lease.name == name), None)


def _all_held(tx: Tx) -> list[Lease]:
    return [
        Lease(name=name, holder=holder, token=token, expires_at=from_us(expires))
        for name, holder, token, expires in tx.rows(LIST_LEASES)
    ]
