"""What the SQL parts ask of a backend's driver.

An *operation* is a plain function of a transaction. It runs on a thread of the driver's, never on the event
loop; operations that are waiting when the driver begins a transaction share it, each under its own savepoint,
and share its commit. An operation may be run again after a conflict, so it must not touch anything but the
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from forge_jobs.observe import Observer
from forge_jobs.storage.error import StorageError

T = TypeVar("T")
Row = tuple[Any, ...]


class Tx(Protocol):
    """One transaction."""

    @property
    def now_us(self) -> int:
        """Store time, read once at the beginning; it is bound as `:now` everywhere."""

    @property
    def makes_queues(self) -> bool:
        """Whether the statements that insert jobs also make the settings rows of their queues."""

    def rows(self, name: str, params: Mapping[str, Any] = {}) -> list[Row]:
        """All rows of the named statement."""

    def row(self, name: str, params: Mapping[str, Any] = {}) -> Row | None:
        """Its first row, if any."""

    def change(self, name: str, params: Mapping[str, Any] = {}) -> int:
        """Run it; how many rows it touched."""

    def change_many(self, name: str, many: Iterable[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
        """Run it for each set of parameters; how many rows were touched in all."""

    def savepoint(self) -> AbstractContextManager[None]:
        """A part that can fail without the rest: an exception undoes it and passes on."""

    def reserve(self, keys: Collection[str], *, wait: bool) -> Collection[str]:
        """Make sure that no other transaction works on these dedupe keys until this one ends; the keys that another
        one has at the moment, if not told to wait. What is read afterwards is the newest state."""


def is_of_the_store(error: BaseException) -> bool:
    """Whether an error is the store's trouble (a conflict, a lock, a full disk, a lost connection), so that the same
    statement may well succeed later; any other is about what was to be written.

    By what PEP 249 calls an OperationalError, which every driver has as a class of its own.
    """
    return isinstance(error, (OSError, StorageError)) or any(
        one.__name__ == "OperationalError" for one in type(error).__mro__
    )


Operation = Callable[[Tx], T]


class Wake(Protocol):
    """How a committed change is told to workers."""

    def due(self, queues: Collection[str]) -> None:
        """Something is ready in these queues: workers of every process hear of it."""

    def later(self, queues: Collection[str]) -> None:
        """Something will be ready later: only this process's timers are told; others find it by polling."""


class Driver(Protocol):
    """Runs operations on a database. Its methods are called on the event loop only."""

    observer: Observer
    """Where operations are counted."""

    def submit(
        self, operation: Operation[T], *, label: str, done: Callable[[T | None, Exception | None], None]
    ) -> None:
        """Run it in a write transaction; `done` is called on the event loop with the result, once it is durable,
        or with the error."""

    async def write(self, operation: Operation[T], *, label: str) -> T:
        """The same, awaited."""

    async def read(self, operation: Operation[T]) -> T:
        """Run it on a read connection. What this process wrote before is seen."""

    def check(self) -> None:
        """Raise the error that every use would meet: the driver is closed, broken, or another process's."""

    def defer(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the event loop once everything that is ready now has run."""
