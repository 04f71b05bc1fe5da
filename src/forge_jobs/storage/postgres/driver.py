"""The PostgreSQL driver: a few lanes, each a thread with a connection of its own.

A lane runs one transaction at a time, in order. What must not wait for each other has its own: the exchange of
settlements and claims, enqueues, reads, and everything else that writes. So the number of connections of a process is
constant, whatever its slots. A transaction that met a conflict goes to the end of its lane's line and is run again;
one whose connection broke is run again on a new connection, unless it may have been committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from weakref import WeakSet

import psycopg

from forge_jobs import failpoints
from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig
from forge_jobs.observe import Observer
from forge_jobs.storage.error import (
    Busy,
    ForkedConnection,
    OutcomeUnknown,
    ReadOnly,
    StorageError,
    StoreUnavailable,
)
from forge_jobs.storage.postgres import errors
from forge_jobs.storage.postgres.connection import (
    ENQUEUE_LOCK_TIMEOUT_MS,
    LOCK_TIMEOUT_MS,
    Connection,
    Connector,
    PostgresTx,
)
from forge_jobs.storage.sql.driver import Operation
from forge_jobs.storage.sql.pending import Pending, answered_in
from forge_jobs.storage.types.metric import Timings

log = logging.getLogger("forge_jobs.postgres")

LANE_OF: Final = {"settle": "exchange", "claim": "exchange", "enqueue": "enqueue"}
"""The lane of an operation, by its label; all others that write share one."""
REPEATABLE: Final = frozenset({"read", "enqueue", "progress", "lease", "share", "process", "limits"})
"""Operations that may be run again though they may have happened: once or twice comes to the same, or for tokens of a
rate limit to less than there are."""
AGAIN_S: Final = (0.01, 0.2)
"""Shortest and longest pause before a transaction that met a conflict is tried again."""
WATCH_S: Final = 0.25
VACUUM_AFTER: Final = 20_000
"""Jobs this process finishes between two vacuums of the table: its dead rows stand at the head of the claim index,
where every claim walks past them. Processes add up to one vacuum per so many jobs by themselves."""
ANALYZE_AFTER: Final = 10_000
T = TypeVar("T")

_drivers: WeakSet[PostgresDriver] = WeakSet()


class PostgresDriver:
    """Implements `Driver` for one server and schema."""

    def __init__(
        self, connector: Connector, book: Mapping[str, str], injected: Clock | None, config: StoreConfig
    ) -> None:
        self.connector = connector
        self.book = book
        self.injected = injected
        self.config = config
        self.forked = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self.upkeep = Upkeep(self)
        self.timings = Timings()
        self.observer = Observer()
        self.lanes = {
            "exchange": Lane(self, "exchange", read_only=config.read_only),
            "enqueue": Lane(self, "enqueue", lock_timeout_ms=ENQUEUE_LOCK_TIMEOUT_MS, read_only=config.read_only),
            "write": Lane(self, "write", read_only=config.read_only),
            "read": Lane(self, "read", read_only=True),
        }
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="forge-postgres-watch", daemon=True)
        self._watcher.start()
        _drivers.add(self)

    def submit(
        self, operation: Operation[T], *, label: str, done: Callable[[T | None, Exception | None], None]
    ) -> None:
        if self.config.read_only:
            done(None, self._refusal() or ReadOnly())
            return
        lane = self.lanes[LANE_OF.get(label, "write")]
        if lane is self.lanes["exchange"] and lane.busy and not self.lanes["write"].busy:
            lane = self.lanes["write"]  # two exchanges at once without a connection more
        self._submit(operation, label, done, lane)

    async def write(self, operation: Operation[T], *, label: str) -> T:
        answer, done = answered_in(self._loop)
        self.submit(operation, label=label, done=done)
        result: T = await answer
        return result

    async def read(self, operation: Operation[T]) -> T:
        answer, done = answered_in(self._loop)
        self._submit(operation, "read", done, self.lanes["read"])
        result: T = await answer
        return result

    def _submit(
        self, operation: Operation[T], label: str, done: Callable[[T | None, Exception | None], None], lane: Lane
    ) -> None:
        if (refusal := self._refusal()) is not None:
            done(None, refusal)
            return
        pending = Pending(operation, label, done, time.monotonic() + self.config.store_deadline_s)
        pending.tally = self.timings.reads if lane.read_only else self.timings.writes
        pending.observer = self.observer
        pending.timer = self._loop.call_later(self.config.store_deadline_s, self._give_up, pending, lane)
        lane.put(pending)

    def _refusal(self) -> StorageError | None:
        if self.forked:
            return ForkedConnection()
        if self._closed:
            return StoreUnavailable("this storage is closed; open it again")
        return None

    def check(self) -> None:
        if (refusal := self._refusal()) is not None:
            raise refusal

    def defer(self, callback: Callable[[], None]) -> None:
        """Enqueues gather for as long as the one before them is under way, and travel together."""
        self._loop.call_soon(self.lanes["enqueue"].when_free, callback)

    async def close(self) -> None:
        """Finish what was submitted, then end threads and connections. A lane that hangs is cut."""
        if self._closed:
            return
        self._closed = True
        if self.forked:
            return
        for lane in self.lanes.values():
            lane.put(None)
        try:
            async with asyncio.timeout(self.config.store_deadline_s):
                await asyncio.shield(asyncio.gather(*(lane.ended for lane in self.lanes.values())))
        except TimeoutError:
            log.warning("close_timeout: PostgreSQL does not answer; its connections are cut")
            for lane in self.lanes.values():
                lane.cut()
        self._stop.set()

    def tell(self, callback: Callable[..., None], *args: object) -> None:
        """Call on the event loop, from a thread."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is gone: nobody waits
            log.debug("answer_undelivered")

    def _give_up(self, pending: Pending, lane: Lane) -> None:
        limit = f"{self.config.store_deadline_s:g} s"
        under_way = not pending.turn.acquire(blocking=False)
        away = None if lane.connected else self.connector.unreachable
        if away is not None and not under_way and not pending.uncertain:
            pending.answer(None, away)
        elif lane.read_only and under_way:
            pending.answer(None, StoreUnavailable(f"the store did not answer within {limit}"))
        elif under_way or pending.uncertain:
            pending.answer(None, OutcomeUnknown(f"the store did not answer within {limit}; the write may still happen"))
        else:
            pending.answer(None, Busy(f"the store was busy for {limit}; nothing was written"))

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_S):
            for connection in self.connector.overdue():
                log.warning("connection_cut: PostgreSQL at %s owes an answer", errors.place(self.connector.url))
                connection.cut()


class Lane:
    """A thread with a connection: transactions of one sort, one after the other."""

    def __init__(
        self,
        driver: PostgresDriver,
        role: str,
        *,
        lock_timeout_ms: int = LOCK_TIMEOUT_MS,
        read_only: bool = False,
    ) -> None:
        self._driver = driver
        self._role = role
        self._lock_timeout_ms = lock_timeout_ms
        self.read_only = read_only
        self._inbox: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._under_way = 0
        self._when_free: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    # On the event loop

    def put(self, pending: Pending | None) -> None:
        if pending is None and self._thread is None:
            self.ended.set_result(None)
            return
        if self._thread is None:  # a process that never enqueues has no connection for it
            self._thread = threading.Thread(target=self._run, name=f"forge-postgres-{self._role}", daemon=True)
            self._thread.start()
        if pending is not None:
            self._under_way += 1
        self._inbox.put(pending)

    def when_free(self, callback: Callable[[], None]) -> None:
        """Call as soon as nothing is under way here."""
        if self._under_way:
            self._when_free.append(callback)
        else:
            callback()

    def cut(self) -> None:
        if self._connection is not None:
            self._connection.cut()

    @property
    def busy(self) -> bool:
        return self._under_way > 0

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def sent(self) -> int:
        """Statements sent over the present connection."""
        return self._connection.sent if self._connection is not None else 0

    def _deliver(self, pending: Pending, result: Any, error: Exception | None) -> None:
        self._under_way -= 1
        try:
            pending.answer(result, error)
        except Exception:  # a fault in one listener must not stop the lane
            log.exception("answer_fault label=%s", pending.label)
        if not self._under_way:
            waiting, self._when_free = self._when_free, []
            for callback in waiting:
                callback()

    def _soon_again(self, pending: Pending) -> None:
        """Back to the end of the line, after a moment."""
        self._loop.call_later(random.uniform(*AGAIN_S), self._inbox.put, pending)  # noqa: S311

    def _set_ended(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    # On the lane's thread

    def _run(self) -> None:
        try:
            while (pending := self._inbox.get()) is not None:
                self._serve(pending)
        finally:
            if self._connection is not None:
                self._connection.close()
            self._driver.tell(self._set_ended)

    def _serve(self, pending: Pending) -> None:
        """Run it until it is answered, or put it at the end of the line."""
        while True:
            refusal = self._connect()  # until there is a connection nothing is under way, and its caller may give it up
            if refusal is not None and self._may_try_again(refusal, pending):
                continue
            if not pending.turn.acquire(blocking=False):  # given up by its caller
                self._driver.tell(self._deliver, pending, None, None)
                return
            try:
                if refusal is not None:
                    raise refusal
                result = self._transact(pending)
            except Exception as error:
                if errors.is_conflict(error) and time.monotonic() < pending.deadline:
                    pending.turn.release()
                    self._driver.tell(self._soon_again, pending)
                    return
                if self._may_try_again(error, pending):
                    pending.turn.release()
                    continue
                self._driver.tell(self._deliver, pending, None, self._final(error, pending))
                return
            self._driver.tell(self._deliver, pending, result, None)
            return

    def _connect(self) -> Exception | None:
        """Make a connection if there is none; why it cannot be had."""
        if self._connection is not None:
            return None
        try:
            self._connection = self._driver.connector.connect(self._role, lock_timeout_ms=self._lock_timeout_ms)
        except Exception as error:
            return error
        return None

    def _may_try_again(self, error: Exception, pending: Pending) -> bool:
        if not errors.is_away(error):
            return False
        self._drop()
        return time.monotonic() < pending.deadline and not self._driver._closed

    def _final(self, error: Exception, pending: Pending) -> Exception:
        if not isinstance(error, errors.DRIVER_ERRORS):
            return error
        final: Exception = errors.translate(error, self._driver.connector.url)
        if pending.uncertain:
            final = OutcomeUnknown(f"an earlier try may have happened, and now: {final}")
        final.__cause__ = error
        return final

    def _transact(self, pending: Pending) -> Any:
        assert self._connection is not None
        driver, connection = self._driver, self._connection
        tx = PostgresTx(connection, driver.book, driver.connector.clock, driver.injected, read_only=self.read_only)
        try:
            result = pending.operation(tx)
            if failpoints.armed:
                failpoints.hit(f"{pending.label}.before_commit")
            tx.commit()
            if failpoints.armed:
                failpoints.hit(f"{pending.label}.after_commit")
        except BaseException as error:
            if errors.is_away(error) and tx.may_have_happened and not self.read_only:
                pending.uncertain = True
                if pending.label not in REPEATABLE:
                    self._drop()
                    raise OutcomeUnknown(
                        f"the connection to PostgreSQL broke during a commit ({type(error).__name__}); "
                        "the write may or may not have happened"
                    ) from error
            tx.rollback()
            raise
        if pending.label == "enqueue" and tx.inserted:
            driver.upkeep.count(inserted=tx.inserted)
        return result

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def command(self, sql: str) -> None:
        """Run a command outside of any transaction. On the lane's thread."""
        if self._connection is not None and not self._connection.pooled:
            self._connection.command(sql, timed=False)


class Upkeep:
    """Vacuums and analyses the table of jobs after much has changed, instead of waiting for the server to notice."""

    def __init__(self, driver: PostgresDriver) -> None:
        self._driver = driver
        self._finished = 0
        self._inserted = 0
        self._lock = threading.Lock()
        self._under_way = False

    def count(self, *, finished: int = 0, inserted: int = 0) -> None:
        """So many jobs more. From a lane's thread."""
        with self._lock:
            self._finished += finished
            self._inserted += inserted
            due = self._finished >= VACUUM_AFTER or self._inserted >= ANALYZE_AFTER
            if not due or self._under_way:
                return
            self._under_way = True
            vacuum = self._finished >= VACUUM_AFTER
            self._finished = 0 if vacuum else self._finished
            self._inserted = 0
        self._driver.tell(self._start, vacuum)

    def _start(self, vacuum: bool) -> None:
        table = self._driver.book["jobs_table"]
        command = f"VACUUM (SKIP_LOCKED, ANALYZE, TRUNCATE false) {table}" if vacuum else f"ANALYZE {table}"

        def operation(tx: Any) -> None:
            with contextlib.suppress(psycopg.Error):
                if not tx.connection.pooled:  # behind a pooler nothing would limit its time
                    tx.connection.command(command)

        self._driver.submit(operation, label="upkeep", done=self._done)

    def _done(self, _result: object, error: Exception | None) -> None:
        self._under_way = False
        if error is not None:
            log.warning("upkeep_fault error=%s", error)


class HeartConnection:
    """The heartbeat's own way to write, on the heartbeat's thread."""

    def __init__(self, driver: PostgresDriver, deadline_s: float) -> None:
        driver.check()
        self._driver = driver
        self._deadline_s = deadline_s
        self._connection: Connection | None = None

    def write(self, operation: Operation[T]) -> T:
        """Run it; a conflict or a broken connection is tried again until the deadline.

        Raises:
            Busy, StoreUnavailable: no try came through in time.
        """
        self._driver.check()
        deadline = time.monotonic() + self._deadline_s
        while True:
            timer: threading.Timer | None = None
            try:
                if self._connection is None:
                    self._connection = self._driver.connector.connect("heartbeat")
                timer = threading.Timer(max(deadline - time.monotonic(), 0.05), self._connection.cut)
                timer.daemon = True
                timer.start()
                return self._transact(self._connection, operation)
            except (psycopg.Error, OSError) as error:
                if not errors.is_conflict(error):
                    self.close()
                if time.monotonic() >= deadline or not (errors.is_conflict(error) or errors.is_away(error)):
                    raise errors.translate(error, self._driver.connector.url) from error
            finally:
                if timer is not None:
                    timer.cancel()

    def _transact(self, connection: Connection, operation: Operation[T]) -> T:
        driver = self._driver
        tx = PostgresTx(connection, driver.book, driver.connector.clock, driver.injected)
        try:
            result = operation(tx)
            tx.commit()
        except BaseException:
            tx.rollback()
            raise
        return result

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _after_fork() -> None:
    for driver in _drivers:
        driver.forked = True


os.register_at_fork(after_in_child=_after_fork)
