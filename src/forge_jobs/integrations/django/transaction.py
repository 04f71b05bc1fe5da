"""Enqueueing in a transaction of Django, in the database that the workers use.

with transaction.atomic():
    order = Order.objects.create()
    enqueue(EnqueueRequest("receipt_send", {"order": order.pk}), wake=queue.wake)

The database is the default one, another alias with `using=`, or a connection that is given first. Its backend is
SQLite, or PostgreSQL with psycopg 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias, cast, overload

from django.db import DEFAULT_DB_ALIAS, connections

from forge_jobs.integrations import _sqlite
from forge_jobs.integrations._enqueue import ROUTER, SCHEMA, Added, Options, Wake, tell
from forge_jobs.runtime.routing import Router
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.sql.at_once import at_once
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

Connection: TypeAlias = Any
"""`django.db.connection`, or one of `django.db.connections`."""


@overload
def enqueue(
    request: EnqueueRequest,
    /,
    *,
    using: str = DEFAULT_DB_ALIAS,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome: ...
@overload
def enqueue(
    connection: Connection,
    request: EnqueueRequest,
    /,
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome: ...
def enqueue(
    first: EnqueueRequest | Connection,
    second: EnqueueRequest | None = None,
    /,
    *,
    using: str = DEFAULT_DB_ALIAS,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> EnqueueOutcome:
    """Add one job with the commit of the outermost `atomic` block; one that rolls back takes it away.

    `wake` is told the job's queue after the commit, through `on_commit`: `queue.wake` of a `SyncQueue`. On PostgreSQL a
    job with a dedupe key waits for another open transaction on the same key, for at most your `lock_timeout`.

    Raises:
        NoTransaction: it is called outside of `atomic`, and `autocommit_ok` is not set.
        ConfigError: the backend is neither SQLite nor PostgreSQL with psycopg 3.
        SchemaMismatch: the database has no forge-jobs schema of this name.
        InvalidInput, DedupeConflict, IdReused, QueueFull: as of every enqueue; your transaction is as it was.
        Errors of the database come as those of `django.db`.
    """
    connection, request = (connections[using], first) if second is None else (first, second)
    options = Options(schema=schema, router=router, autocommit_ok=autocommit_ok)
    return _add(connection, [cast("EnqueueRequest", request)], options, wake)[0]


@overload
def enqueue_bulk(
    requests: Sequence[EnqueueRequest],
    /,
    *,
    using: str = DEFAULT_DB_ALIAS,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]: ...
@overload
def enqueue_bulk(
    connection: Connection,
    requests: Sequence[EnqueueRequest],
    /,
    *,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]: ...
def enqueue_bulk(
    first: Sequence[EnqueueRequest] | Connection,
    second: Sequence[EnqueueRequest] | None = None,
    /,
    *,
    using: str = DEFAULT_DB_ALIAS,
    wake: Wake | None = None,
    schema: str = SCHEMA,
    router: Router = ROUTER,
    autocommit_ok: bool = False,
) -> list[EnqueueOutcome]:
    """Add up to 10 000 jobs with the commit; outcomes in request order. Raises as `enqueue` does."""
    connection, requests = (connections[using], first) if second is None else (first, second)
    options = Options(schema=schema, router=router, autocommit_ok=autocommit_ok)
    return _add(connection, cast("Sequence[EnqueueRequest]", requests), options, wake)


def _add(
    connection: Connection, requests: Sequence[EnqueueRequest], options: Options, wake: Wake | None
) -> list[EnqueueOutcome]:
    connection.validate_thread_sharing()
    connection.validate_no_broken_transaction()
    connection.ensure_connection()
    with connection.wrap_database_errors:
        added = at_once(_add_on(connection, requests, options))
    if wake is not None and added.queues:
        connection.on_commit(partial(tell, wake, added.queues))
    return added.outcomes


async def _add_on(connection: Connection, requests: Sequence[EnqueueRequest], options: Options) -> Added:
    """Add the jobs on the driver's connection. Nothing is waited for."""
    raw = connection.connection
    match connection.vendor:
        case "sqlite":
            await _sqlite.begin(raw)  # where autocommit is off; else `atomic` did
            return await _sqlite.add(raw, requests, options)
        case "postgresql" if type(raw).__module__.partition(".")[0] == "psycopg":
            from forge_jobs.integrations import psycopg

            return await psycopg.add(raw, requests, options)
        case other:
            raise ConfigError(f"the database is {other}; it must be SQLite, or PostgreSQL with psycopg 3")
