"""Bare psycopg and bare asyncpg, each on one connection, one statement after the other; the faster is the limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import msgspec
import psycopg

from forge_jobs.bench.measure import NOOP, QUEUE, BenchError
from forge_jobs.bench.postgres.clients import FORGE, Client, Row, clients
from forge_jobs.bench.raw import JobTuple, batches, tuples

FILL_BATCH: Final = 10_000
DAY_US: Final = 86_400_000_000
_encode = msgspec.json.Encoder().encode
AddBatch: TypeAlias = Callable[[Client, list[JobTuple]], Awaitable[object]]


class PostgresRaw:
    """Implements `Raw`. connection: for everything that is not timed."""

    def __init__(self, url: str, schema: str, connection: psycopg.Connection[Row]) -> None:
        self._url = url
        self._schema = schema
        self._connection = connection

    def fill(self, count: int, *, future: bool = False) -> None:
        """By COPY, which takes a million in seconds, in batches that do not need the memory of all."""
        ready, priority, delay_us = (0, -10, DAY_US) if future else (1, 0, 0)
        with self._connection.cursor() as cursor, cursor.copy(FORGE["copy"].encode()) as copy:
            for start in range(0, count, FILL_BATCH):
                jobs = tuples(min(FILL_BATCH, count - start))
                copy.write("".join(_line(job, ready, priority, delay_us) for job in jobs))
        self._settle()

    def _settle(self) -> None:
        """Do at once what the server would do in the middle of a measure: look at every new row for the first time,
        learn that the table is not empty any more, which plans depend on, and, if we may ask for it, write it out."""
        self._connection.execute("VACUUM (ANALYZE) jobs")
        with suppress(psycopg.errors.InsufficientPrivilege):
            self._connection.execute("CHECKPOINT")

    def insert_rate(self, count: int, batch: int) -> float:
        """The best of every driver and every way to say it."""
        ways = (_one,) if batch == 1 else (_arrays, _json, _many)

        def insert(add: AddBatch) -> Callable[[Client], Awaitable[float]]:
            return lambda client: _insert_rate(client, add, tuples(count), batch)

        return max(self._fastest(insert(add), fill=0) for add in ways)

    def drain_rate(self, count: int, batch: int) -> float:
        return self._fastest(lambda client: _drain_rate(client, count, batch), fill=count)

    def done_span(self) -> tuple[int, int, int]:
        done, first_us, last_us = self._row("done_span")
        return done, first_us, last_us

    def workers(self) -> int:
        count: int = self._row("registered")[0]
        return count

    def _row(self, name: str) -> Row:
        row = self._connection.execute(FORGE[name].encode()).fetchone()
        assert row is not None
        return row

    def _fastest(self, measure: Callable[[Client], Awaitable[float]], *, fill: int) -> float:
        """The best rate that any driver reaches, each with `fill` jobs of its own in the table."""
        rates = []
        for connect in clients():
            self._connection.execute("TRUNCATE jobs")
            self.fill(fill)
            rates.append(asyncio.run(self._measured(connect.connect, measure)))
        return max(rates)

    async def _measured(
        self, connect: Callable[[str, str], Awaitable[Client]], measure: Callable[[Client], Awaitable[float]]
    ) -> float:
        client = await connect(self._url, self._schema)
        try:
            return await measure(client)
        finally:
            await client.close()


def _line(job: JobTuple, ready: int, priority: int, delay_us: int) -> str:
    """A line of COPY; none of the values holds a character that would have to be escaped there."""
    job_id, queue, kind, payload, now = job
    return f"{job_id}\t{queue}\t{kind}\t{payload}\tpending\t{ready}\t{priority}\t5\t{now}\t{now + delay_us}\n"


async def _insert_rate(client: Client, add: AddBatch, jobs: list[JobTuple], batch: int) -> float:
    began = time.perf_counter()
    for some in batches(jobs, batch):
        await add(client, some)
    return len(jobs) / (time.perf_counter() - began)


async def _one(client: Client, jobs: list[JobTuple]) -> None:
    await client.rows("insert", *jobs[0])


async def _arrays(client: Client, jobs: list[JobTuple]) -> None:
    columns: Sequence[Any] = [list(column) for column in zip(*jobs, strict=True)]
    await client.rows("insert_arrays", *columns)


async def _json(client: Client, jobs: list[JobTuple]) -> None:
    await client.rows("insert_json", _encode(jobs).decode())


async def _many(client: Client, jobs: list[JobTuple]) -> None:
    await client.many("insert", jobs)


async def _drain_rate(client: Client, count: int, batch: int) -> float:
    began = time.perf_counter()
    done = 0
    while done < count:
        now = time.time_ns() // 1000
        rows = await client.rows("claim", now, QUEUE, NOOP, min(batch, count - done))
        if not rows:
            raise BenchError(f"bare SQL found {done} of {count} jobs")
        await client.rows("finalize", now, [row[0] for row in rows])
        done += len(rows)
    return count / (time.perf_counter() - began)
