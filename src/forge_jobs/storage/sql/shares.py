"""The share store over a driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from forge_jobs.clock import duration_us
from forge_jobs.names import check_name
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Tx
from forge_jobs.storage.types.share import Assignment, Share, Standing

LIST_SHARES = statement("list_shares")
WRITE_SHARE = statement("write_share")
WRITE_OPEN = statement("write_open")
LOCK_TOTAL = statement("lock_total")
STANDING = statement("standing")
REVOKE_SILENT = statement("revoke_silent")
OPEN_ELSEWHERE = statement("open_elsewhere")


class SqlShares:
    """Implements `ShareStore`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def list(self) -> list[Share]:
        def operation(tx: Tx) -> list[Share]:
            return [
                Share(queue=queue, host_id=host, share=share, open=slots)
                for queue, host, share, slots in tx.rows(LIST_SHARES)
            ]

        return await self._driver.read(operation)

    async def assign(self, shares: Sequence[Assignment]) -> int:
        ordered = sorted(shares, key=lambda one: (one.queue, one.host_id))  # two writers meet in the same order
        if not ordered:
            return 0

        def operation(tx: Tx) -> int:
            return sum(
                tx.change(WRITE_SHARE, {"queue": one.queue, "host": one.host_id, "share": one.share}) for one in ordered
            )

        return await self._driver.write(operation, label="shares")

    async def standing(self, queue: str, host_id: str, stale_after: timedelta) -> Standing:
        check_name(queue, "queue")
        return await self._driver.read(lambda tx: _standing(tx, queue, host_id, duration_us(stale_after)))

    async def open_slots(
        self, queue: str, host_id: str, *, staying: int, closing: int, wanted: int, stale_after: timedelta
    ) -> int:
        check_name(queue, "queue")
        stale = duration_us(stale_after)

        def operation(tx: Tx) -> int:
            tx.row(LOCK_TOTAL, {"queue": queue})  # others who open slots of this queue wait, or have committed
            standing = _standing(tx, queue, host_id, stale)
            if standing.total is not None and wanted > min(staying, standing.open - closing):
                # What is taken from a silent process is written down first, so that it learns of it when it is back.
                tx.change(REVOKE_SILENT, {"queue": queue, "host": host_id, "stale": stale})
                (elsewhere,) = tx.rows(OPEN_ELSEWHERE, {"queue": queue, "host": host_id})[0]
                standing = replace(standing, elsewhere=elsewhere)
            allowed = standing.may_open(staying=staying, closing=closing, wanted=wanted)
            tx.change(WRITE_OPEN, {"queue": queue, "host": host_id, "open": allowed + closing})
            return allowed

        return await self._driver.write(operation, label="shares")


def _standing(tx: Tx, queue: str, host_id: str, stale_us: int) -> Standing:
    row = tx.row(STANDING, {"queue": queue, "host": host_id, "stale": stale_us})
    if row is None:
        return Standing(total=0, share=None, open=0, elsewhere=0, live=False)
    total, share, slots, elsewhere, live = row
    return Standing(total=total, share=share, open=slots, elsewhere=elsewhere, live=bool(live))
