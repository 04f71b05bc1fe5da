"""One operation for stores that answer at once and for connections that are awaited.

Adding jobs happens on our own connections, whose calls block their thread, and in transactions of other people, some on
async drivers. So it is written once, with `await` before every statement. On a `Tx` nothing is ever waited for: the
coroutine runs to its end in one step, as a plain call would.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from forge_jobs.storage.sql.driver import Row, Tx

T = TypeVar("T")


class AwaitedTx(Protocol):
    """A `Tx` whose answers are awaited; its methods are those of `Tx`."""

    @property
    def now_us(self) -> int: ...

    @property
    def makes_queues(self) -> bool: ...

    async def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]: ...

    async def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None: ...

    async def change(self, name: str, params: Mapping[str, Any] = {}) -> int: ...

    async def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int: ...

    def savepoint(self) -> AbstractAsyncContextManager[None]: ...

    async def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]: ...


class AtOnce:
    """A `Tx` as an `AwaitedTx` that never makes anybody wait."""

    __slots__ = ("_tx", "makes_queues", "now_us")

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.makes_queues = tx.makes_queues
        self.now_us = tx.now_us

    async def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]:
        return self._tx.rows(name, params)

    async def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None:
        return self._tx.row(name, params)

    async def change(self, name: str, params: Mapping[str, Any] = {}) -> int:
        return self._tx.change(name, params)

    async def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
        return self._tx.change_many(name, many)

    @contextlib.asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        with self._tx.savepoint():
            yield

    async def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]:
        return self._tx.reserve(keys, wait=wait)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that never waits gives back, or raises."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    work.close()
    raise RuntimeError("a connection that answers at once made its caller wait")
