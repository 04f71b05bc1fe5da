"""A store in an SQLite file: the parts of `storage.sql` over the SQLite driver."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from forge_jobs.clock import Clock, SystemClock
from forge_jobs.config import StoreConfig
from forge_jobs.storage.error import ConfigError, SchemaMismatch, StoreUnavailable
from forge_jobs.storage.sql import claim
from forge_jobs.storage.sql.book import load_book
from forge_jobs.storage.sql.enqueue import KnownQueues
from forge_jobs.storage.sql.events import SqlEvents
from forge_jobs.storage.sql.jobs import SqlJobs
from forge_jobs.storage.sql.leases import SqlLeases
from forge_jobs.storage.sql.logs import SqlLogs
from forge_jobs.storage.sql.maintenance import SqlAudit, Sweep, cleanup
from forge_jobs.storage.sql.metrics import SqlMetrics
from forge_jobs.storage.sql.processes import SqlProcesses
from forge_jobs.storage.sql.queues import SqlQueues
from forge_jobs.storage.sql.rate_limits import SqlRateLimits
from forge_jobs.storage.sql.schedules import SqlSchedules
from forge_jobs.storage.sql.shares import SqlShares
from forge_jobs.storage.sqlite import connection as sqlite
from forge_jobs.storage.sqlite.checkpoint import is_safe_version
from forge_jobs.storage.sqlite.driver import (
    HeartConnection,
    MemoryHeartConnection,
    SqliteDriver,
    check_not_of_the_parent,
)
from forge_jobs.storage.sqlite.migrate import migrate, migrations, pending, schema_version
from forge_jobs.storage.sqlite.session import LONGEST_S, SqliteSession
from forge_jobs.storage.sqlite.wake import SqliteWake, socket_directory
from forge_jobs.storage.types.answers import CleanupReport
from forge_jobs.storage.types.event import Actor

log = logging.getLogger("forge_jobs.sqlite")

OLDEST_SQLITE: Final = (3, 38, 0)
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p", "fuse.sshfs", "fuse.glusterfs"}
)


class SqliteStorage:
    """Implements `Storage`."""

    def __init__(self, driver: SqliteDriver, wake: SqliteWake) -> None:
        self._driver = driver
        self._wake = wake
        self.clock: Clock = driver.clock
        self.url = f"sqlite:///{driver.database or ':memory:'}"
        self.observer = driver.observer
        self.events = SqlEvents(driver, self.observer)
        self.logs = SqlLogs(driver)
        known = KnownQueues()
        self.jobs = SqlJobs(driver, self.events, wake, driver.config, known, claim.exchange, self._session, self.clock)
        self.queues = SqlQueues(driver, wake, known)
        self.processes = SqlProcesses(driver, self._connect_heart)
        self.leases = SqlLeases(driver)
        self.shares = SqlShares(driver)
        self.rate_limits = SqlRateLimits(driver, wake)
        self.schedules = SqlSchedules(driver, self.jobs, wake, driver.config, known)
        self.metrics = SqlMetrics(driver)
        self.timings = driver.timings
        self.audit = SqlAudit(driver)
        self.maintenance = SqliteMaintenance(driver)
        self._flusher = asyncio.get_running_loop().create_task(self._flush_events(), name="forge-event-flush")

    exchanges_at_once: Final = 1

    @property
    def wakes_proven(self) -> bool:
        return True  # the watch on the file sees every commit

    def subscribe(self, host_id: str, on_wake: Callable[[frozenset[str] | None], None]) -> Callable[[], None]:
        return self._wake.subscribe(host_id, on_wake)

    def wake(self, queues: Sequence[str] | None = None) -> None:
        self._wake.due(queues)

    async def close(self) -> None:
        self._flusher.cancel()
        await asyncio.gather(self._flusher, return_exceptions=True)
        await self.queues.close()
        await self.jobs.close()
        try:
            await self.events.flush()
        except Exception as error:
            log.warning("events_lost count=%d error=%s", self.events.waiting, error)
        self._wake.close()
        await self._driver.close()

    def _connect_heart(self, deadline: timedelta) -> HeartConnection | MemoryHeartConnection:
        kind = MemoryHeartConnection if self._driver.database is None else HeartConnection
        return kind(self._driver, deadline.total_seconds())

    def _session(self, limit: timedelta) -> tuple[Callable[[], SqliteSession], float]:
        return lambda: SqliteSession(self._driver), min(LONGEST_S, limit.total_seconds())

    async def _flush_events(self) -> None:
        """Written every few seconds, whether or not this process runs workers."""
        while True:
            await asyncio.sleep(self._driver.config.event_flush_s)
            if self.events.waiting:
                try:
                    await self.events.flush()
                except Exception as error:
                    log.warning("event_flush_fault error=%s; kept for the next flush", error)


class SqliteMaintenance:
    """Implements `MaintenanceStore`."""

    def __init__(self, driver: SqliteDriver) -> None:
        self._driver = driver

    async def cleanup(
        self,
        *,
        queue: str | None = None,
        done_older_days: float | None = None,
        dead_older_days: float | None = None,
        actor: Actor | None = None,
    ) -> CleanupReport:
        sweep = Sweep(queue=queue, done_older_days=done_older_days, dead_older_days=dead_older_days, actor=actor)
        return await cleanup(self._driver, sweep)

    async def status(self) -> dict[str, Any]:
        database, config = self._driver.database, self._driver.config
        copied_at = self._driver.log.copied_at
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, _inspect, database)
        return {
            "backend": "sqlite",
            "path": str(database or ":memory:"),
            "sqlite_version": sqlite3.sqlite_version,
            "wal_reset_safe": is_safe_version(sqlite3.sqlite_version_info),
            "wal_reset_defence": "checkpoints run only while the write lock is held",
            "durability": config.durability,
            "synchronous": "FULL" if config.durability == "full" else "NORMAL",
            "checkpoint_age_s": None if copied_at is None else round(time.monotonic() - copied_at, 3),
            **found,
        }

    async def backup(self, path: str) -> None:
        database = self._driver.database
        if database is None:
            raise StoreUnavailable("a database in memory has nothing to back up")
        if Path(path).exists():
            raise StoreUnavailable(f"{path} exists; a backup makes a new file")
        await asyncio.get_running_loop().run_in_executor(None, _backup, database, Path(path))


async def open_sqlite(path: str, *, clock: Clock | None, config: StoreConfig, create: bool) -> SqliteStorage:
    """Open the file, make it if allowed, bring its schema up to date, and start the driver."""
    database = None if path == ":memory:" else Path(path).absolute()
    if database is not None:
        check_not_of_the_parent(database)
        _check_place(database, config, create=create and not config.read_only)
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old; 3.38 or newer is needed")
    book = load_book(files("forge_jobs.storage.sqlite").joinpath("overlay.sql"), claim.PART)
    if database is not None:
        if not create or config.read_only:
            await asyncio.get_running_loop().run_in_executor(None, _check_ours, database)
        if config.read_only:
            await asyncio.get_running_loop().run_in_executor(None, _check_current, database)
        else:
            await asyncio.get_running_loop().run_in_executor(None, _migrate, database, config)
    driver = SqliteDriver(database, book, clock or SystemClock(), config)
    if database is None:
        migrate(driver._connection, None)  # nobody else can see it yet
    return SqliteStorage(driver, SqliteWake(database))


def files_of(database: Path) -> list[Path]:
    """Everything of ours that stands beside a database file."""
    return [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-gate", "-turn", "-wake")]


def drop(database: Path) -> None:
    """Remove the database with its log, locks and sockets."""
    with contextlib.suppress(OSError):
        shutil.rmtree(socket_directory(database), ignore_errors=True)
    for path in files_of(database):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _check_ours(database: Path) -> None:
    """A database that never was ours is left alone."""
    try:
        with contextlib.closing(sqlite.look_at(database)) as connection:
            version = schema_version(connection)
    except sqlite3.Error as error:
        raise sqlite.translate(error, database) from error
    if version == 0:
        raise SchemaMismatch(f"{database} holds no forge-jobs schema; `forge-jobs db create` adds it")


def _check_current(database: Path) -> None:
    """What may not be changed must be up to date."""
    with contextlib.closing(sqlite.look_at(database)) as connection:
        lacking = pending(connection)
    if lacking:
        raise SchemaMismatch(
            f"{database} lacks {len(lacking)} migrations, and read_only applies none; `forge-jobs db migrate` does"
        )


def _migrate(database: Path, config: StoreConfig) -> None:
    connection = sqlite.connect(database, durability=config.durability, create=True)
    try:
        for step in migrate(connection, database):
            log.info("migrated version=%d name=%s", step.version, step.name)
    except sqlite3.Error as error:
        raise sqlite.translate(error, database) from error
    finally:
        connection.close()


def _check_place(database: Path, config: StoreConfig, *, create: bool) -> None:
    if not database.exists():
        if not create:
            raise StoreUnavailable(f"there is no database {database}; create it with `forge-jobs db create`")
        if not database.parent.is_dir():
            raise StoreUnavailable(f"the directory {database.parent} does not exist; make it first")
    kind = file_system(database.parent)
    if kind in NETWORK_FILE_SYSTEMS:
        if not config.force_network_fs:
            raise ConfigError(
                f"database {database} is on a network file system ({kind}), where SQLite's locks do not hold; "
                "use a local disk, or PostgreSQL for several machines"
            )
        log.warning("network_file_system path=%s type=%s forced", database, kind)


def file_system(directory: Path) -> str:
    """The type of the file system that holds `directory`, from the mount table; empty if unknown."""
    best, found = -1, ""
    resolved = os.path.realpath(directory)
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    for line in mounts:
        fields = line.split()
        point = fields[1].replace("\\040", " ")
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) > best:
            best, found = len(point), fields[2]
    return found


def _inspect(database: Path | None) -> dict[str, Any]:
    if database is None:
        return {"schema_version": migrations()[-1].version, "pending_migrations": []}
    connection = sqlite.connect(database)
    try:
        wal = database.with_name(database.name + "-wal")
        free = shutil.disk_usage(database.parent)
        return {
            "schema_version": schema_version(connection),
            "pending_migrations": [step.name for step in pending(connection)],
            "db_size_bytes": database.stat().st_size,
            "wal_bytes": wal.stat().st_size if wal.exists() else 0,
            "free_disk_bytes": free.free,
            "free_disk_pct": round(100 * free.free / free.total, 1),
            "file_system": file_system(database.parent),
        }
    finally:
        connection.close()


def _backup(database: Path, path: Path) -> None:
    try:
        with (
            contextlib.closing(sqlite.connect(database)) as source,
            contextlib.closing(sqlite3.connect(path)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        path.unlink(missing_ok=True)  # half a copy is none
        raise StoreUnavailable(f"the backup could not be written to {path} ({sqlite.name_of(error)})") from error
