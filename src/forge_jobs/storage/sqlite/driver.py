"""The SQLite driver: one writer thread with group commit, two readers.

Every write of the process goes through one thread. While it commits, the next operations gather; then they
share one transaction and one fsync, each under its own savepoint, so that one that fails does not harm its
neighbours. No timer delays anything: a lone operation is committed at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakSet

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
from forge_jobs.storage.sql.driver import Operation
from forge_jobs.storage.sql.pending import Pending, answered_in, observe_operation
from forge_jobs.storage.sqlite import connection as sqlite
from forge_jobs.storage.sqlite.checkpoint import Log, checkpoint
from forge_jobs.storage.sqlite.turnstile import Turnstile
from forge_jobs.storage.types.metric import Timings

log = logging.getLogger("forge_jobs.sqlite")

READERS: Final = 2
GROUP_LIMIT: Final = 1_000
"""Most operations in one transaction."""
IDLE_S: Final = 1.0
"""After this long without work the log is checkpointed."""
ANALYZE_AFTER_CHANGES: Final = 10_000
FILE_CHECK_S: Final = 5.0
"""How often it is checked that the file is still the one that was opened."""
T = TypeVar("T")

_drivers: WeakSet[SqliteDriver] = WeakSet()
_files_of_the_parent: set[tuple[int, int]] = set()


class SqliteDriver:
    """Implements `Driver` for one file, or for a database in memory (`database=None`)."""

    def __init__(self, database: Path | None, book: Mapping[str, str], clock: Clock, config: StoreConfig) -> None:
        self.database = database
        self.book = book
        self.clock = clock
        self.config = config
        self.log = Log()
        self.timings = Timings()
        self.observer = Observer()
        self.forked = False
        self._changed = 0
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._closed = False
        self._broken: StoreUnavailable | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._connection = sqlite.connect(database, durability=config.durability, busy_timeout_ms=sqlite.BUSY_TRY_MS)
        self._checkpointer = sqlite.connect(database) if database else None
        if config.read_only:
            self._connection.execute("PRAGMA query_only=ON")
        self._turnstile = Turnstile(database)
        self._file = _identity(database)
        self._file_checked = time.monotonic()
        self._readers = _Readers(self) if database else None
        self._thread = threading.Thread(target=self._run, name="forge-sqlite-writer", daemon=True)
        self._thread.start()
        _drivers.add(self)

    # On the event loop

    def submit(
        self, operation: Operation[T], *, label: str, done: Callable[[T | None, Exception | None], None]
    ) -> None:
        refusal = self._refusal()
        if refusal is None and self.config.read_only and label != "read":
            refusal = ReadOnly()
        if refusal is not None:
            done(None, refusal)
            return
        write = Pending(operation, label, done, time.monotonic() + self.config.store_deadline_s)
        write.tally = self.timings.reads if label == "read" else self.timings.writes
        write.observer = self.observer
        write.timer = self._loop.call_later(self.config.store_deadline_s, self._give_up, write)
        self._inbox.put(write)

    async def write(self, operation: Operation[T], *, label: str) -> T:
        answer, done = answered_in(self._loop)
        self.submit(operation, label=label, done=done)
        result: T = await answer
        return result

    async def read(self, operation: Operation[T]) -> T:
        self.check()
        if self._readers is None:
            return await self.write(operation, label="read")
        began, error = time.monotonic(), None
        try:
            return await self._readers.read(operation)
        except Exception as raised:
            error = raised
            raise
        finally:
            took_s = time.monotonic() - began
            self.timings.reads.add(took_s * 1000)
            observe_operation(self.observer, "read", took_s, error)

    def _refusal(self) -> StorageError | None:
        """Why this driver cannot be used any more, if it cannot."""
        if self.forked:
            return ForkedConnection()
        if self._closed:
            return StoreUnavailable("this storage is closed; open it again")
        return self._broken

    def check(self) -> None:
        if (refusal := self._refusal()) is not None:
            raise refusal

    def defer(self, callback: Callable[[], None]) -> None:
        self._loop.call_soon(callback)

    async def close(self) -> None:
        """Finish what was submitted, then end the threads. A writer stuck behind a frozen process is left."""
        if self._closed:
            return
        self._closed = True
        if self.forked:
            return
        self._inbox.put(None)
        try:
            async with asyncio.timeout(self.config.store_deadline_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            log.warning("close_timeout: another process holds the database; its lock is left to it")
        if self._readers is not None:
            self._readers.close()

    def _give_up(self, write: Pending) -> None:
        limit = f"{self.config.store_deadline_s:g} s"
        if not write.turn.acquire(blocking=False):
            write.answer(None, OutcomeUnknown(f"the store did not answer within {limit}; the write may still happen"))
        else:
            write.answer(None, Busy(f"the store was busy for {limit}; nothing was written"))

    def _deliver(self, answers: list[tuple[Pending, Any, Exception | None]]) -> None:
        for write, result, error in answers:
            try:
                write.answer(result, error)
            except Exception:  # a fault in one listener must not cost the others their answers
                log.exception("answer_fault label=%s", write.label)

    def _set_ended(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    # On the writer thread

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                if group:
                    self._write_group(group)
                    if self.log.is_due:
                        self._checkpoint()
                else:
                    self._idle()
        finally:
            self._connection.close()
            if self._checkpointer is not None:
                self._checkpointer.close()
            self._turnstile.close()
            try:
                self._loop.call_soon_threadsafe(self._set_ended)
            except RuntimeError:  # the loop is gone: nobody waits
                pass

    def _take(self) -> list[Pending] | None:
        """The operations that wait; an empty list after a while without any; None at the end."""
        try:
            first = self._inbox.get(timeout=IDLE_S)
        except queue.Empty:
            return []
        group = [first]
        try:
            while len(group) < GROUP_LIMIT and group[-1] is not None:
                group.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        if group[-1] is None:
            group.pop()
            self._inbox.put(None)
        if not group:
            return None
        return [write for write in group if write is not None]

    def _write_group(self, group: list[Pending]) -> None:
        answers: list[tuple[Pending, Any, Exception | None]] = []
        try:
            self._check_file()
            self._turnstile.enter()
            try:
                answers = self._transact(group)
            finally:
                self._turnstile.leave()
        except sqlite3.Error as error:
            answers = [(write, None, sqlite.translate(error, self.database)) for write in group]
        except Exception as error:
            answers = [(write, None, error) for write in group]  # a lone operation's own refusal ends here too
        try:
            self._loop.call_soon_threadsafe(self._deliver, answers)
        except RuntimeError:  # the loop was closed with writes on their way: what is committed stays
            log.debug("answers_undelivered count=%d", len(answers))

    def _transact(self, group: list[Pending]) -> list[tuple[Pending, Any, Exception | None]]:
        connection = self._connection
        sqlite.begin(connection, max(write.deadline for write in group))
        changes = connection.total_changes
        try:
            group = [write for write in group if write.turn.acquire(blocking=False)]
            tx = sqlite.SqliteTx(connection, self.book, self.clock)
            answers: list[tuple[Pending, Any, Exception | None]]
            if len(group) == 1:
                answers = [(group[0], group[0].operation(tx), None)]
            else:
                answers = [self._operate(write, tx) for write in group]
            changes = connection.total_changes - changes
            _pass(group, "before_commit")
            connection.execute("COMMIT")
            _pass(group, "after_commit")
        except BaseException:
            sqlite.rollback(connection)
            raise
        if changes:
            self.log.wrote(changes)
            self._changed += changes
        return answers

    def _operate(self, write: Pending, tx: sqlite.SqliteTx) -> tuple[Pending, Any, Exception | None]:
        try:
            with tx.savepoint():
                return write, write.operation(tx), None
        except sqlite3.Error as error:
            if not self._connection.in_transaction:  # SQLite gave the whole transaction up: disk full, I/O error
                raise
            return write, None, sqlite.translate(error, self.database)
        except Exception as error:
            return write, None, error

    def _idle(self) -> None:
        try:
            self._check_file()
            if self.config.read_only:
                return
            if self._changed >= ANALYZE_AFTER_CHANGES:
                self._analyze()
            if self.log.guess:
                self._checkpoint()
        except Exception as error:
            log.warning("idle_fault error=%s", error)

    def _analyze(self) -> None:
        """Refresh the planner's statistics after much has changed; a sample, so it takes milliseconds."""
        self._changed = 0
        self._turnstile.enter()
        try:
            self._connection.execute("PRAGMA analysis_limit=400")
            self._connection.execute("ANALYZE forge_jobs")
        except sqlite3.Error as error:
            log.warning("analyze_fault error=%s", getattr(error, "sqlite_errorname", error))
        finally:
            self._turnstile.leave()

    def _checkpoint(self) -> None:
        if self._checkpointer is None:
            return
        self._turnstile.enter()
        try:
            checkpoint(self._connection, self._checkpointer, self.log)
        except sqlite3.Error as error:
            sqlite.rollback(self._connection)
            self.log.guess = 0.0  # try again after as many pages more
            log.warning("checkpoint_fault error=%s", getattr(error, "sqlite_errorname", error))
        finally:
            self._turnstile.leave()

    def _check_file(self) -> None:
        """Stop using a file that was replaced or deleted under us: writing on would lose every job silently."""
        if self.database is None or time.monotonic() - self._file_checked < FILE_CHECK_S:
            return
        self._file_checked = time.monotonic()
        if _identity(self.database) != self._file or not _wal(self.database).exists():
            self._broken = StoreUnavailable(
                f"{self.database} was replaced or deleted while it was in use; this process stops using it. "
                "Restart it, and copy databases with `forge-jobs db backup` only",
                fatal=True,
            )
            log.critical("store_replaced path=%s", self.database)
        if self._broken is not None:
            raise self._broken


class HeartConnection:
    """The heartbeat's own way to write: another thread, another connection, the same turnstile."""

    def __init__(self, driver: SqliteDriver, deadline_s: float) -> None:
        driver.check()
        self._driver = driver
        self._deadline_s = deadline_s
        self._connection = sqlite.connect(
            driver.database, durability=driver.config.durability, busy_timeout_ms=sqlite.BUSY_TRY_MS
        )
        self._turnstile = Turnstile(driver.database)

    def write(self, operation: Operation[T]) -> T:
        self._driver.check()
        deadline = time.monotonic() + self._deadline_s
        return sqlite.in_transaction(
            self._connection, self._turnstile, self._driver.book, self._driver.clock, operation, deadline=deadline
        )

    def close(self) -> None:
        self._connection.close()
        self._turnstile.close()


class MemoryHeartConnection:
    """A database in memory has one connection: beats go through the writer thread."""

    def __init__(self, driver: SqliteDriver, deadline_s: float) -> None:
        self._driver = driver
        self._deadline_s = deadline_s

    def write(self, operation: Operation[T]) -> T:
        answer: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()
        deadline = time.monotonic() + self._deadline_s
        write = Pending(lambda tx: answer.put((operation(tx), None)), "beat", lambda _result, _error: None, deadline)
        self._driver._inbox.put(write)
        try:
            result, error = answer.get(timeout=self._deadline_s)
        except queue.Empty:
            raise Busy("the writer thread did not answer in time") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def close(self) -> None:
        pass


class _Readers:
    """Threads that read, each on its own connection, in short autocommit reads fetched whole."""

    def __init__(self, driver: SqliteDriver) -> None:
        self._driver = driver
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="forge-sqlite-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def read(self, operation: Operation[T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._driver.config.store_deadline_s):
                return await loop.run_in_executor(self._pool, self._read, operation)
        except TimeoutError:
            raise Busy(f"a read took over {self._driver.config.store_deadline_s:g} s and was given up") from None

    def _read(self, operation: Operation[T]) -> T:
        try:
            connection = self._connect()
            connection.execute("BEGIN")  # one snapshot for all statements of the operation
            try:
                return operation(sqlite.SqliteTx(connection, self._driver.book, self._driver.clock))
            finally:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise sqlite.translate(error, self._driver.database) from error

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = sqlite.connect(self._driver.database)
            connection.execute("PRAGMA query_only=ON")
            self._connections.append(connection)
        return connection

    def close(self) -> None:
        self._pool.shutdown(wait=True)
        for connection in self._connections:
            connection.close()


def _pass(group: list[Pending], stage: str) -> None:
    if failpoints.armed:
        for write in group:
            failpoints.hit(f"{write.label}.{stage}")


def _identity(database: Path | None) -> tuple[int, int] | None:
    if database is None:
        return None
    try:
        stat = database.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _wal(database: Path) -> Path:
    return database.with_name(database.name + "-wal")


def _after_fork() -> None:
    for driver in _drivers:
        driver.forked = True
        if driver._file is not None and not driver._closed:
            _files_of_the_parent.add(driver._file)


def check_not_of_the_parent(database: Path) -> None:
    """Refuse a file that the parent process had open when it forked.

    SQLite keeps in memory which locks a process holds on a file. A child inherits these notes without the locks: what
    it opened would take none, and the parent would remove the log under it. Acknowledged jobs were lost so when tried.
    """
    if _identity(database) in _files_of_the_parent:
        raise ForkedConnection()


os.register_at_fork(after_in_child=_after_fork)
