"""The limit: bare SQL on our own tables and indexes, as durably, with no queue around it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import islice
from typing import Protocol, TypeAlias, TypeVar

from forge_jobs.bench.measure import NOOP, PAYLOAD, QUEUE
from forge_jobs.ids import new_ids
from forge_jobs.payload import encode_payload
from forge_jobs.storage.sql.book import parse

Book: TypeAlias = Mapping[str, str]
T = TypeVar("T")
JobTuple: TypeAlias = tuple[str, str, str, str, int]
"""Id, queue, kind, payload, and when it was enqueued."""


class Raw(Protocol):
    """Bare SQL on one store of ours."""

    def fill(self, count: int, *, future: bool = False) -> None:
        """Add `count` jobs that are ready, or that are due in a day and of better priority, in bulk, and leave the
        store as if it had been at rest since."""

    def insert_rate(self, count: int, batch: int) -> float:
        """Jobs a second, added to the empty store in transactions of `batch`."""

    def drain_rate(self, count: int, batch: int) -> float:
        """Jobs a second of `count`, with which the empty store is filled before, claimed and finalized in turn, each in
        transactions of `batch`."""

    def done_span(self) -> tuple[int, int, int]:
        """How many jobs are done, when the first was claimed and when the last was settled, in microseconds."""

    def workers(self) -> int:
        """How many worker processes have registered."""


def load(package: str) -> Book:
    """The statements on our tables in one backend's words."""
    page = files(package).joinpath("forge_tables.sql")
    return parse(page.read_text(), page.name)


def tuples(count: int) -> list[JobTuple]:
    """Jobs ready to be bound to a statement, ids ascending."""
    payload, now = encode_payload(PAYLOAD), time.time_ns() // 1000
    return [(job_id, QUEUE, NOOP, payload, now) for job_id in new_ids(count)]


def batches(jobs: list[T], size: int) -> Iterator[list[T]]:
    rest = iter(jobs)
    while some := list(islice(rest, size)):
        yield some
