"""A transaction of the caller's on PostgreSQL, whichever driver it has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Protocol

from forge_jobs.config import StoreConfig
from forge_jobs.integrations import _enqueue
from forge_jobs.integrations._enqueue import SAVEPOINT, Added, Options, bracket
from forge_jobs.storage.postgres import book
from forge_jobs.storage.sql.driver import Row
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.types.job import EnqueueRequest

_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s|%%")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the book as psycopg reads it, and with the numbered parameters of the server's own protocol."""

    named: str
    numbered: str
    names: tuple[str, ...]
    """What `$1`, `$2` … are."""

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        return [params[name] for name in self.names]


def statement(named: str) -> Statement:
    """Both forms of a statement that is written as psycopg reads it."""
    names = tuple(dict.fromkeys(found[1] for found in _PLACEHOLDER.finditer(named) if found[1]))
    numbers = {name: f"${number}" for number, name in enumerate(names, start=1)}
    return Statement(named, _PLACEHOLDER.sub(lambda found: numbers[found[1]] if found[1] else "%", named), names)


LOOK: Final = statement(
    "SELECT to_regclass(CAST(%(table)s AS text)) IS NOT NULL, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
)


class Driver(Protocol):
    """What the drivers do differently."""

    advice: str

    @property
    def alone(self) -> bool:
        """Whether the connection is in autocommit mode and no transaction is open."""

    async def fetch(self, statement: Statement, params: Mapping[str, Any]) -> list[Row]: ...

    async def count(self, statement: Statement, params: Mapping[str, Any]) -> int:
        """Run it; how many rows it touched."""

    async def command(self, sql: str) -> object: ...


async def add(driver: Driver, requests: Sequence[EnqueueRequest], options: Options) -> Added:
    """Add the jobs."""
    return await _enqueue.add(PostgresTx(driver, options.schema), requests, options)


class PostgresTx:
    """Implements `CallersTx`."""

    makes_queues: Final = True
    now_us: int
    """The server's clock; known after `look`."""

    def __init__(self, driver: Driver, schema: str) -> None:
        self.advice = driver.advice
        self._driver = driver
        self._schema = schema
        self._book = _book(schema)

    @property
    def alone(self) -> bool:
        return self._driver.alone

    async def look(self) -> None:
        """One statement for the clock, which is needed each time, and the schema, which then costs no round trip."""
        ((found, self.now_us),) = await self._driver.fetch(LOOK, {"table": f"{self._schema}.schema"})
        if not found:
            raise _enqueue.no_schema(f"the schema {self._schema} of this database")

    def transaction(self) -> AbstractAsyncContextManager[None]:
        return bracket(self._driver.command, "BEGIN", "COMMIT", ["ROLLBACK"])

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        return bracket(self._driver.command, *SAVEPOINT)

    async def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]:
        return await self._driver.fetch(self._book[name], self._bound(params))

    async def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None:
        found = await self.rows(name, params)
        return found[0] if found else None

    async def change(self, name: str, params: Mapping[str, Any] = {}) -> int:
        return await self._driver.count(self._book[name], self._bound(params))

    async def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
        return await self.change(name, {"rows": to_json(list(many))})

    async def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]:
        params = {"keys": to_json(sorted(keys))}
        if wait:
            await self.rows("reserve_keys", params)
            return ()
        return {key for (key,) in await self.rows("try_reserve_keys", params)}

    def _bound(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Truth values are 0 and 1 in our tables."""
        return {"now": self.now_us} | {
            name: int(value) if isinstance(value, bool) else value for name, value in params.items()
        }


@cache
def _book(schema: str) -> Mapping[str, Statement]:
    StoreConfig(schema=schema)  # refuses what is no name
    return {name: statement(sql) for name, sql in book.load(schema).items()}
