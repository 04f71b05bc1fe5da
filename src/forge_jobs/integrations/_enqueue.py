"""What the integrations share: from a request to rows, by the same code that a store uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from forge_jobs import limits
from forge_jobs.runtime.routing import DefaultRouter, Router, fill
from forge_jobs.storage.error import NoTransaction, SchemaMismatch
from forge_jobs.storage.request import check_requests
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.enqueue import KnownQueues, insert_jobs
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

ROUTER: Final = DefaultRouter()


class SeenSchemas:
    """Connections on which our schema was found, so that it is looked for once."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()

    def has(self, connection: Any, schema: str) -> bool:
        return schema in self._seen.get(connection, ())

    def add(self, connection: Any, schema: str) -> None:
        self._seen.setdefault(connection, set()).add(schema)


def add(tx: Tx, requests: Sequence[EnqueueRequest], router: Router) -> list[EnqueueOutcome]:
    """Add the jobs in the transaction; outcomes in request order, all or a refusal."""
    filled = [fill(request, router) for request in requests]
    jobs = check_requests(filled, parent_id=None, payload_max=limits.PAYLOAD_MAX_BYTES)
    if not jobs:
        return []
    return insert_jobs(tx, jobs, KnownQueues(), atomic=True).answers  # type: ignore[return-value]  # a refusal is raised


def no_transaction(how: str) -> NoTransaction:
    """The refusal of a connection on which nothing is open."""
    return NoTransaction(
        f"no transaction is open on this connection, so the job would not be part of one; {how}, "
        "or say autocommit_ok=True if it may stand alone"
    )


def no_schema(where: str) -> SchemaMismatch:
    """The refusal of a database without our tables."""
    return SchemaMismatch(f"{where} holds no forge-jobs schema; `forge-jobs db create` adds it")
