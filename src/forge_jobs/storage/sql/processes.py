"""The process store over a driver, and the heart that beats for one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

import msgspec

from forge_jobs.clock import duration_us, from_us
from forge_jobs.ids import JobId
from forge_jobs.storage.error import NotFound
from forge_jobs.storage.protocol import PYTHON, Heart
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Operation, Tx
from forge_jobs.storage.sql.rows import audit_params, to_json
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.process import BeatAnswer, Claimed, ProcessInfo, ProcessRow, ProcessWish
from forge_jobs.text import clean

BEAT_JOBS = statement("beat_jobs")
BEAT_PROCESS = statement("beat_process")
RUNNING_OF_HOST = statement("running_of_host")
LIST_PROCESSES = statement("list_processes")
PRUNE_PROCESSES = statement("prune_processes")
WISH_OF_PROCESS = statement("wish_of_process")
ASK_PROCESS = statement("ask_process")
INSERT_AUDIT = statement("insert_audit")
REMOVE_PROCESS = statement("remove_process")
REMOVE_PAUSES_OF_THE_GONE = statement("remove_pauses_of_the_gone")
REMOVE_PAUSES_OF_PROCESS = statement("remove_pauses_of_process")
REMOVE_SHARES_OF_THE_GONE = statement("remove_shares_of_the_gone")
REMOVE_SHARES_OF_PROCESS = statement("remove_shares_of_process")
RELEASE_LEASES_OF_PROCESS = statement("release_leases_of_process")


NAME_BYTES: Final = 512


class HeartConnection(Protocol):
    """A write connection of its own, used from one thread."""

    def write(self, operation: Operation[BeatAnswer]) -> BeatAnswer: ...

    def close(self) -> None: ...


class SqlProcesses:
    """Implements `ProcessStore`."""

    def __init__(self, driver: Driver, connect: Callable[[timedelta], HeartConnection]) -> None:
        self._driver = driver
        self._connect = connect

    def open_heart(self, deadline: timedelta) -> Heart:
        return SqlHeart(self._connect(deadline))

    async def list(self, stale_after: timedelta) -> list[ProcessRow]:
        def operation(tx: Tx) -> list[ProcessRow]:
            return [
                ProcessRow(
                    info=msgspec.json.decode(info, type=ProcessInfo),
                    started_at=from_us(started),
                    heartbeat_at=from_us(beat),
                    live=bool(live),
                )
                for info, started, beat, live in tx.rows(LIST_PROCESSES, {"stale": duration_us(stale_after)})
            ]

        return await self._driver.read(operation)

    async def ask(self, host_id: str, wish: ProcessWish | None, *, actor: Actor = PYTHON) -> None:
        params = {"host": clean(host_id, NAME_BYTES), "wish": None if wish is None else wish.value}

        def operation(tx: Tx) -> None:
            if tx.change(ASK_PROCESS, params) != 1:
                raise NotFound(f"there is no process {host_id!r}")
            action = "worker.resume" if wish is None else f"worker.{wish.value}"
            tx.change(INSERT_AUDIT, audit_params(actor, action, host_id, outcome="asked"))

        await self._driver.write(operation, label="process")

    async def remove(self, host_id: str) -> None:
        def operation(tx: Tx) -> None:
            tx.change(REMOVE_PROCESS, {"host": host_id})
            tx.change(REMOVE_PAUSES_OF_PROCESS, {"host": host_id})
            tx.change(REMOVE_SHARES_OF_PROCESS, {"host": host_id})
            tx.change(RELEASE_LEASES_OF_PROCESS, {"host": host_id})

        await self._driver.write(operation, label="process")

    async def prune(self, silent_for: timedelta) -> int:
        params = {"silent": duration_us(silent_for)}

        def operation(tx: Tx) -> int:
            gone = tx.change(PRUNE_PROCESSES, params)
            if gone:
                tx.change(REMOVE_PAUSES_OF_THE_GONE)
                tx.change(REMOVE_SHARES_OF_THE_GONE)
            return gone

        return await self._driver.write(operation, label="process")


class SqlHeart:
    """Implements `Heart`."""

    def __init__(self, connection: HeartConnection) -> None:
        self._connection = connection

    def beat(self, process: ProcessInfo, claims: Sequence[Claimed]) -> BeatAnswer:
        return self._connection.write(lambda tx: _beat(tx, process, claims))

    def close(self) -> None:
        self._connection.close()


def _beat(tx: Tx, process: ProcessInfo, claims: Sequence[Claimed]) -> BeatAnswer:
    tx.change(BEAT_PROCESS, {"host": process.host_id, "label": process.label, "info": to_json(process)})
    if claims:
        newest: dict[JobId, int] = {}  # of two claims of one job only the later can still hold
        for claim in claims:
            newest[claim.job_id] = max(claim.fence, newest.get(claim.job_id, 0))
        tx.change(BEAT_JOBS, {"claims": to_json(newest)})
    owned: set[Claimed] = set()
    cancelled: set[JobId] = set()
    for job_id, fence, cancel_requested in tx.rows(RUNNING_OF_HOST, {"host": process.host_id}):
        owned.add(Claimed(JobId(job_id), fence))
        if cancel_requested:
            cancelled.add(JobId(job_id))
    named = set(claims)
    wish = tx.row(WISH_OF_PROCESS, {"host": process.host_id})
    return BeatAnswer(
        lost=frozenset(named - owned),
        cancel_requested=frozenset(cancelled),
        strays=frozenset(owned - named),
        wish=_wish(wish[0] if wish is not None else None),
    )


def _wish(word: str | None) -> ProcessWish | None:
    """A word of a newer program is not one that this one could follow."""
    return ProcessWish(word) if word in list(ProcessWish) else None
