"""Where a fault is tried: a database, worker processes on it, callers that enqueue without a break, and the accounts.

The accounts are read from two places that know nothing of each other: the rows in the database, and the ledger in which
the handlers wrote what they did.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psycopg

from forge_jobs import (
    Busy,
    EnqueueOutcome,
    EnqueueRequest,
    OutcomeUnknown,
    RuntimeConfig,
    Storage,
    StoreConfig,
    StoreUnavailable,
    open_storage,
)
from forge_jobs.ids import new_id
from forge_jobs.testing.cluster import Cluster, until
from process import ledger, stage

QUICK: Final = RuntimeConfig(
    heartbeat_s=0.25,
    stale_s=4.0,
    reaper_s=0.3,
    supervisor_s=0.1,
    poll_ms=50,
    shutdown_grace_s=0.3,
    cancel_grace_s=0.2,
)
"""A stale threshold that a busy machine does not reach by itself."""
CALM: Final = StoreConfig(event_flush_s=60)
"""A store that commits nothing of its own accord."""
HEALED_S: Final = 30.0
ROLES: Final = ("exchange", "enqueue", "write", "read", "heartbeat", "listen")


class Job(NamedTuple):
    """A row, as SQL has it."""

    id: str
    status: str
    attempts: int
    crashes: int
    fence: int


class Stage(stage.Stage):
    """One test's database with the processes on it. `storage` looks at it directly, whatever is between the others."""

    def __init__(self, folder: Path, database: str, url: str, storage: Storage) -> None:
        super().__init__(folder, url)
        self.direct = database
        self.storage = storage

    def workers(self, count: int = 1, *, slots: int = 8, config: RuntimeConfig = QUICK) -> Cluster:
        return self.cluster(count, slots=slots, config=config)

    def jobs(self) -> dict[str, Job]:
        """Every row."""
        found = self.sql("SELECT id, status, attempts, crashes, fence FROM forge.jobs")
        return {row[0]: Job(*row) for row in found}

    def sql(self, statement: str, *params: Any) -> list[Any]:
        """What an operator does by hand."""
        with psycopg.connect(self.direct, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), params or None)
            return cursor.fetchall() if cursor.description else []

    def refuse(self, sqlstates: list[str], *, when: str, on: str = "INSERT OR UPDATE") -> None:
        """From now on a write to a row of a job fails with one of these, when the SQL condition `when` says so."""
        self.sql("CREATE SEQUENCE refusals")  # it counts: no rollback resets it
        self.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
            f"DECLARE states text[] := '{{{','.join(sqlstates)}}}'; n bigint := nextval('refusals'); "
            f"BEGIN IF {when} THEN RAISE EXCEPTION USING MESSAGE = 'not now', "
            "ERRCODE = states[1 + n % cardinality(states)]; END IF; RETURN NEW; END $$"
        )
        self.sql(f"CREATE TRIGGER refuse BEFORE {on} ON forge.jobs FOR EACH ROW EXECUTE FUNCTION refuse()")

    def caller(self, deadline_s: float = 10.0) -> AbstractAsyncContextManager[Storage]:
        """A store as callers and workers see it, whose calls take no longer than this."""
        return open_storage(self.url, config=replace(CALM, store_deadline_s=deadline_s))

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Somebody holds the whole table."""
        with psycopg.connect(self.direct) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            yield

    def backends(self, role: str) -> set[int]:
        """The server's processes behind our connections of this role."""
        found = self.sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s",
            f"forge-jobs/{role}",
        )
        return {pid for (pid,) in found}

    async def replaced(self, role: str, ended: set[int]) -> None:
        """Wait until this role has a connection that is none of these."""
        await until(lambda: self.backends(role) - ended, within_s=HEALED_S, what=f"a new connection for {role}")

    async def said(self, cluster: Cluster, name: str, what: str) -> None:
        """Wait until this worker's log has this."""
        await until(lambda: what in cluster.log(name), within_s=HEALED_S, what=f"{name} says {what!r}")

    async def busy(self, runs: int = 20) -> None:
        """Wait until so many more jobs were run."""
        goal = len(self.read("end")) + runs
        await until(lambda: len(self.read("end")) >= goal, within_s=HEALED_S, what=f"{runs} more jobs run")

    async def settled(self, *, within_s: float = HEALED_S) -> None:
        """Wait until every job is done or dead."""

        def unfinished() -> bool:
            statuses = self.sql("SELECT DISTINCT status FROM forge.jobs")
            return {status for (status,) in statuses} <= set(stage.FINISHED)

        await until(unfinished, within_s=within_s, what="every job done or dead")

    def account(self, load: Load, *, crashes: bool = False) -> Account:
        """What came of the jobs, after each was checked: none lost, none stuck, none run twice without a reason.

        A second run has a reason if its job was taken from an owner who fell silent, which the row counts as a crash;
        without `crashes` there is none.
        """
        jobs = self.jobs()
        runs: defaultdict[str, list[ledger.Entry]] = defaultdict(list)
        for entry in self.read("start"):
            runs[entry.job].append(entry)
        ended = {(entry.job, entry.fence) for entry in self.read("end")}
        assert load.acknowledged.keys() <= jobs.keys(), "an acknowledged job is lost"
        assert jobs.keys() <= load.tried, "a job that nobody enqueued"
        assert {job.id: job.status for job in jobs.values() if job.status != "done"} == {}
        assert runs.keys() == jobs.keys()
        for job in jobs.values():
            fences = [entry.fence for entry in runs[job.id]]
            story = f"{job} was run under {fences}"
            assert (job.id, job.fence) in ended, f"done without a run that ended: {story}"
            assert len(set(fences)) == len(fences), f"one claim was run twice: {story}"
            assert max(fences) == job.fence, f"a late owner wrote: {story}"
            assert len(fences) <= 1 + job.crashes, f"a second run without a reason: {story}"
            assert job.attempts == 1 + job.crashes, f"an attempt was lost or burnt: {story}"
            assert crashes or job.crashes == 0, f"taken from an owner who was alive: {story}"
        return Account(len(jobs), sum(map(len, runs.values())), sum(job.crashes for job in jobs.values()))


@dataclass(frozen=True, slots=True)
class Account:
    """How many jobs there were, how many runs of them, and how many times one was taken from its owner."""

    jobs: int
    runs: int
    crashes: int


@asynccontextmanager
async def staged(folder: Path, database: str, *, through: Callable[[str], str] | None = None) -> AsyncIterator[Stage]:
    """A stage on an empty database; with `through`, workers and callers reach it by way of a proxy."""
    async with open_storage(database, config=CALM) as storage:
        yield Stage(folder, database, through(database) if through else database, storage)


class Load:
    """Callers that enqueue one job after the other; each goes on with the same id until it is acknowledged."""

    def __init__(self, storage: Storage, *, kind: str = "brief", payload: Any = 0.002, pause_s: float = 0.01) -> None:
        self.tried: set[str] = set()
        self.acknowledged: dict[str, EnqueueOutcome] = {}
        self.errors: Counter[str] = Counter()
        """Errors that callers saw, by class."""
        self._storage = storage
        self._kind = kind
        self._payload = payload
        self._pause_s = pause_s
        self._over = asyncio.Event()
        self._callers: list[asyncio.Task[None]] = []

    def start(self, callers: int = 4) -> Self:
        self._callers = [asyncio.get_running_loop().create_task(self._call()) for _ in range(callers)]
        return self

    async def stop(self) -> None:
        """No new jobs; returns when all are acknowledged."""
        self._over.set()
        await asyncio.wait_for(asyncio.gather(*self._callers), HEALED_S)

    def give_up(self) -> None:
        for caller in self._callers:
            caller.cancel()

    async def put(self, count: int) -> None:
        """So many jobs, at once."""
        await asyncio.gather(*(self._put() for _ in range(count)))

    async def _call(self) -> None:
        while not self._over.is_set():
            await self._put()
            await asyncio.sleep(self._pause_s)

    async def _put(self) -> None:
        request = EnqueueRequest(self._kind, self._payload, queue="default", id=new_id())
        assert request.id is not None
        self.tried.add(request.id)
        while request.id not in self.acknowledged:
            try:
                self.acknowledged[request.id] = await self._storage.jobs.enqueue(request)
            except (Busy, OutcomeUnknown, StoreUnavailable) as error:
                self.errors[type(error).__name__] += 1
                await asyncio.sleep(0)  # what refuses at once must not keep the loop from all else


@asynccontextmanager
async def loaded(stage: Stage, **load: Any) -> AsyncIterator[Load]:
    """Callers on a store of their own, at work within the block; at its end every job of theirs is acknowledged."""
    async with stage.caller() as storage:
        made = Load(storage, **load).start()
        try:
            yield made
        except BaseException:  # the test failed: on a closed store its callers would go round for ever
            made.give_up()
            raise
        await made.stop()
