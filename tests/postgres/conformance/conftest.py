"""PostgreSQL under the conformance suite: a schema of its own for every store, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.testing.postgres import Server

ON_BOTH_SERVERS = (
    "TestClaim", "TestClaimAlone", "TestClaimAndSettings", "TestFinalize", "TestEnqueue", "TestEnqueueBulk",
    "TestDedupe", "TestPaidClaims", "TestRateLimit", "TestRevive", "TestFire", "TestHeartbeat", "TestFilter",
    "TestOrders",
)  # fmt: skip
"""What depends most on how a server plans and locks."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The short run tries everything on one server, the newer one, and `make slow` the rest on the older."""
    for item in items:
        if "test_older_server" in item.nodeid and not any(f"::{name}::" in item.nodeid for name in ON_BOTH_SERVERS):
            item.add_marker(pytest.mark.slow)


class PostgresBackend:
    """Stores in numbered schemas of one database, the first of which is there."""

    name = "postgresql"
    one_host = False

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened = 0

    def open(self, clock: Clock) -> AbstractAsyncContextManager[Storage]:
        self._opened += 1
        return self.reopen(clock)

    def reopen(self, clock: Clock) -> AbstractAsyncContextManager[Storage]:
        return open_storage(self._url, clock=clock, config=StoreConfig(schema=f"store_{self._opened}"))


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[PostgresBackend]:
    """On the server that the test's module names: one file for each, so that they run side by side."""
    server: Server = request.getfixturevalue(request.module.SERVER)
    database = server.new_store("store_1")
    yield PostgresBackend(database)
    server.drop_database(database)
