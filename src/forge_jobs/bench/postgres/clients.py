"""The drivers, bare: one connection, prepared statements, every statement a transaction of its own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final, Protocol, Self, TypeAlias

import psycopg

from forge_jobs.bench.raw import load

FORGE: Final = load("forge_jobs.bench.postgres")
Row: TypeAlias = Sequence[Any]


class Client(Protocol):
    """A connection of one driver; statements by their names."""

    async def rows(self, name: str, *values: Any) -> Sequence[Row]:
        """What a statement answers, in one round trip."""

    async def many(self, name: str, rows: Sequence[Row]) -> None:
        """A statement for each of `rows`, all in one transaction."""

    async def close(self) -> None: ...


def plain_connection(url: str, schema: str) -> psycopg.Connection[Row]:
    """A connection that sees the tables of `schema`, and is known to the server by that name."""
    connection = psycopg.connect(
        url, autocommit=True, prepare_threshold=0, cursor_factory=psycopg.RawCursor, application_name=schema
    )
    connection.execute(f"SET search_path TO {schema}".encode())
    return connection


class PsycopgClient:
    """Implements `Client` by plain calls, which are faster than psycopg's async ones."""

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, url: str, schema: str) -> Self:
        return cls(plain_connection(url, schema))

    async def rows(self, name: str, *values: Any) -> Sequence[Row]:
        cursor = self._connection.execute(FORGE[name].encode(), values)
        return cursor.fetchall() if cursor.description else ()

    async def many(self, name: str, rows: Sequence[Row]) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(FORGE[name].encode(), rows)

    async def close(self) -> None:
        self._connection.close()


class AsyncpgClient:
    """Implements `Client`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._prepared: dict[str, Any] = {}

    @classmethod
    async def connect(cls, url: str, schema: str) -> Self:
        import asyncpg

        settings = {"search_path": schema, "application_name": schema}
        return cls(await asyncpg.connect(url, server_settings=settings))

    async def rows(self, name: str, *values: Any) -> Sequence[Row]:
        statement = self._prepared.get(name)
        if statement is None:
            statement = self._prepared[name] = await self._connection.prepare(FORGE[name])
        found: Sequence[Row] = await statement.fetch(*values)
        return found

    async def many(self, name: str, rows: Sequence[Row]) -> None:
        await self._connection.executemany(FORGE[name], rows)

    async def close(self) -> None:
        await self._connection.close()


def clients() -> tuple[type[PsycopgClient] | type[AsyncpgClient], ...]:
    """Those whose drivers are installed; psycopg is, since our own store is made of it."""
    return (PsycopgClient, AsyncpgClient) if find_spec("asyncpg") else (PsycopgClient,)
