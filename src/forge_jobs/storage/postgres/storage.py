"""A store on a PostgreSQL server: the parts of `storage.sql` over the PostgreSQL driver."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import psycopg

from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig
from forge_jobs.storage.error import ConfigError, SchemaMismatch, StoreUnavailable
from forge_jobs.storage.postgres import book, errors, migrate
from forge_jobs.storage.postgres.connection import Connection, Connector, check_reachable
from forge_jobs.storage.postgres.driver import HeartConnection, PostgresDriver
from forge_jobs.storage.postgres.exchange import exchange
from forge_jobs.storage.postgres.listen import PostgresWake
from forge_jobs.storage.postgres.session import LONGEST_S, PostgresSession
from forge_jobs.storage.postgres.time import StoreClock
from forge_jobs.storage.sql.enqueue import KnownQueues
from forge_jobs.storage.sql.events import SqlEvents
from forge_jobs.storage.sql.jobs import SqlJobs
from forge_jobs.storage.sql.kinds import SqlKinds
from forge_jobs.storage.sql.leases import SqlLeases
from forge_jobs.storage.sql.logs import SqlLogs
from forge_jobs.storage.sql.maintenance import SqlAudit, Sweep, cleanup
from forge_jobs.storage.sql.metrics import SqlMetrics
from forge_jobs.storage.sql.processes import SqlProcesses
from forge_jobs.storage.sql.queues import SqlQueues
from forge_jobs.storage.sql.rate_limits import SqlRateLimits
from forge_jobs.storage.sql.schedules import SqlSchedules
from forge_jobs.storage.sql.shares import SqlShares
from forge_jobs.storage.types.answers import CleanupReport
from forge_jobs.storage.types.event import Actor

log = logging.getLogger("forge_jobs.postgres")

CONNECTIONS: Final = 6
"""Most connections of one process: exchange, enqueue, write, read, heartbeat, listen. Each is made when it is first
needed, so a program that only enqueues has two or three."""


class PostgresStorage:
    """Implements `Storage`."""

    def __init__(self, driver: PostgresDriver, wake: PostgresWake, url: str) -> None:
        self._driver = driver
        self._wake = wake
        self.clock: Clock = driver.injected or driver.connector.clock
        self.url = url
        self.observer = driver.observer
        self.events = SqlEvents(driver, self.observer)
        self.logs = SqlLogs(driver)
        known = KnownQueues()
        self.jobs = SqlJobs(driver, self.events, wake, driver.config, known, self._exchange, self._session, self.clock)
        self.queues = SqlQueues(driver, wake, known)
        self.processes = SqlProcesses(driver, self._connect_heart)
        self.kinds = SqlKinds(driver)
        self.leases = SqlLeases(driver)
        self.shares = SqlShares(driver)
        self.rate_limits = SqlRateLimits(driver, wake)
        self.schedules = SqlSchedules(driver, self.jobs, wake, driver.config, known)
        self.metrics = SqlMetrics(driver)
        self.timings = driver.timings
        self.audit = SqlAudit(driver)
        self.maintenance = PostgresMaintenance(driver, wake)
        self._flusher = asyncio.get_running_loop().create_task(self._flush_events(), name="forge-event-flush")

    def _exchange(self, tx: Any, settlements: Any, claims: Any) -> Any:
        result = exchange(tx, settlements, claims)
        if result[0].done:
            self._driver.upkeep.count(finished=len(result[0].done))
        return result

    exchanges_at_once: Final = 2

    @property
    def wakes_proven(self) -> bool:
        return self._wake.proven

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
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._wake.close)
        except RuntimeError:  # the interpreter ends and starts no thread any more
            self._wake.close()
        finally:
            await self._driver.close()

    def _connect_heart(self, deadline: timedelta) -> HeartConnection:
        return HeartConnection(self._driver, deadline.total_seconds())

    def _session(self, limit: timedelta) -> tuple[Callable[[], PostgresSession], float]:
        return lambda: PostgresSession(self._driver), LONGEST_S

    async def _flush_events(self) -> None:
        """Written every few seconds, whether or not this process runs workers."""
        while True:
            await asyncio.sleep(self._driver.config.event_flush_s)
            if self.events.waiting:
                try:
                    await self.events.flush()
                except Exception as error:
                    log.warning("event_flush_fault error=%s; kept for the next flush", error)


class PostgresMaintenance:
    """Implements `MaintenanceStore`."""

    def __init__(self, driver: PostgresDriver, wake: PostgresWake) -> None:
        self._driver = driver
        self._wake = wake

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
        driver = self._driver
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, _inspect, driver.connector, driver.config.schema)
        listens = await loop.run_in_executor(None, _listens, driver.connector)
        return {
            "backend": "postgresql",
            "place": errors.place(driver.connector.url),
            "schema": driver.config.schema,
            "durability": "process" if found["synchronous_commit"] == "off" else driver.config.durability,
            "pooled": bool(driver.connector.pooled),
            "listens": listens,
            "notifications": "arrive" if self._wake.proven else "not seen" if driver.config.notify else "off",
            "connections_of_a_process": CONNECTIONS,
            "clock_ahead_of_host_ms": round(driver.connector.clock.ahead_of_host_ms, 1),
            **found,
        }

    async def backup(self, path: str) -> None:
        raise StoreUnavailable(
            f"a backup of a PostgreSQL store is the server's work: pg_dump --schema={self._driver.config.schema}"
        )


async def open_postgres(url: str, *, clock: Clock | None, config: StoreConfig, create: bool) -> PostgresStorage:
    """Connect, bring the schema up to date if that is allowed, and start the driver."""
    connector = Connector(url, config, StoreClock())
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, _prepare, connector, config, create and not config.read_only)
    statements = book.load(config.schema)
    driver = PostgresDriver(connector, statements, clock, config)
    return PostgresStorage(driver, PostgresWake(connector, config.schema), masked(url))


def masked(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def schema_sql(config: StoreConfig) -> str:
    """The complete schema, for people who apply it themselves."""
    return migrate.schema_text(config.schema)


def migrate_now(url: str, config: StoreConfig, *, plan: bool) -> list[str]:
    """Apply the pending migrations, or with `plan` only tell them; the SQL of each."""
    connector = Connector(url, config, StoreClock())
    with contextlib.closing(check_reachable(connector)) as connection, errors.translated(connector.url):
        texts = migrate.plan(connection, config.schema)
        if not plan:
            migrate.migrate(connection, config.schema)
        return texts


def drop(url: str, config: StoreConfig) -> None:
    """Remove the schema with everything in it; if it holds tables of others, refuse."""
    connector = Connector(url, config, StoreClock())
    with contextlib.closing(check_reachable(connector)) as connection, errors.translated(connector.url):
        if migrate.applied(connection, config.schema):
            connection.command(f"DROP SCHEMA {config.schema} CASCADE", timed=False)


def _prepare(connector: Connector, config: StoreConfig, create: bool) -> None:
    with contextlib.closing(check_reachable(connector)) as connection, errors.translated(connector.url):
        _check_server(connection)
        applied = migrate.applied(connection, config.schema)  # once: another process may migrate at this moment
        lacking = migrate.not_among(applied)
        if not lacking:
            return
        empty = not applied
        where = f"{errors.place(connector.url)}, schema {config.schema}"
        if empty and not create:
            raise SchemaMismatch(f"{where}, holds no forge-jobs schema; `forge-jobs db create` adds it")
        if not empty and not (create and config.auto_migrate):
            raise SchemaMismatch(
                f"{where}, lacks {len(lacking)} migration{'s' if len(lacking) > 1 else ''}; "
                "`forge-jobs db migrate` applies them"
            )
        for step in migrate.migrate(connection, config.schema):
            log.info("migrated version=%d name=%s", step.version, step.name)


def _check_server(connection: Connection) -> None:
    row = connection.raw.execute("SELECT pg_is_in_recovery()").fetchone()
    if row is not None and row[0]:
        raise ConfigError("this PostgreSQL server is a replica, or is still recovering; give the primary's address")


INSPECT: Final = b"""
SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync'),
  current_setting('full_page_writes'), current_setting('max_connections')::int,
  count(*) FILTER (WHERE backend_type = 'client backend'),
  count(*) FILTER (WHERE application_name LIKE 'forge-jobs/%%'),
  pg_total_relation_size(to_regclass(%(jobs)s)),
  count(*) FILTER (WHERE backend_type = 'client backend' AND state = 'active'),
  (SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = to_regclass(%(jobs)s)),
  coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)) FILTER (
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()), 0)::float8,
  100 * pg_notification_queue_usage()
FROM pg_stat_activity
"""


def _inspect(connector: Connector, schema: str) -> dict[str, Any]:
    with contextlib.closing(check_reachable(connector)) as connection, errors.translated(connector.url):
        names = ("server_version", "synchronous_commit", "fsync", "full_page_writes", "max_connections")
        row = connection.raw.execute(INSPECT, {"jobs": f"{schema}.jobs"}).fetchone()
        assert row is not None
        applied = migrate.applied(connection, schema)
        return {
            **dict(zip(names, row, strict=False)),
            "server_connections": row[5],
            "our_connections": row[6],
            "jobs_bytes": row[7] or 0,
            "active_connections": row[8],
            "dead_tuples": row[9] or 0,
            "oldest_transaction_s": round(max(row[10], 0.0), 3),
            "notify_queue_pct": row[11],
            "schema_version": max((step.version for step in applied), default=0),
            "pending_migrations": [step.name for step in migrate.pending(connection, schema)],
        }


def _listens(connector: Connector) -> str:
    """How a worker of this configuration listens: `direct`, `pooled`, which hears nothing, `unreachable` or `off`."""
    config = connector.config
    if not config.notify:
        return "off"
    if config.listen_url is None:
        return "pooled" if connector.pooled else "direct"
    try:
        with contextlib.closing(connector.connect("open", url=config.listen_url)) as connection:
            return "pooled" if connection.pooled else "direct"
    except (psycopg.Error, OSError, ConfigError):
        return "unreachable"
