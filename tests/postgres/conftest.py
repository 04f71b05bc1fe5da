"""PostgreSQL tests run on real servers: two versions, started when first asked for, a database for each test.

The shared servers may be stopped and started, but not by `immediate`: they do not wait for their disk, so a crash takes
what was just committed. `durable_server` starts one that may crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from forge_jobs.testing.fault_proxy import FaultProxy
from forge_jobs.testing.postgres import BINARIES, Server, find_binaries, installed_versions, major_version

from .pgbouncer import PgBouncer
from .starters import StartBouncer, StartServer


def _versions() -> list[int]:
    """The version that the environment names, else the oldest on this machine; and the newest."""
    first = major_version(find_binaries()) if BINARIES in os.environ else min(installed_versions(), default=0)
    return sorted({first, max(installed_versions(), default=0)})


VERSIONS = _versions()


@pytest.fixture(scope="session")
def pg15() -> Iterator[Server]:
    """The older of the two: 15 on Debian 12, unless the environment names another."""
    with Server(VERSIONS[0]) as server:
        yield server


@pytest.fixture(scope="session")
def pg18() -> Iterator[Server]:
    """The newer: what the wheel has."""
    with Server(VERSIONS[-1]) as server:
        yield server


@pytest.fixture(scope="session", params=VERSIONS, ids="postgresql-{}".format)
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two in turn."""
    found = request.getfixturevalue("pg15" if request.param == VERSIONS[0] else "pg18")
    assert isinstance(found, Server)
    return found


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """The URL of an empty database that only this test uses."""
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    """A proxy to the server: `proxy.url_through(database)`."""
    with FaultProxy(server.url) as running:
        yield running


@pytest.fixture
def durable_server() -> Iterator[StartServer]:
    """Starts a server that keeps what was committed when it crashes, for this test alone."""
    with ExitStack() as started:

        def start(version: int | None = None, *, settings: Mapping[str, str] | None = None) -> Server:
            return started.enter_context(Server(version, durable=True, settings=settings))

        yield start


@pytest.fixture
def bouncer() -> Iterator[StartBouncer]:
    """Starts PgBouncer in front of the server of a URL: `bouncer(server.url).url_through(database)`."""
    with ExitStack() as started:

        def start(url: str, *, pool_size: int = 1, settings: Mapping[str, str] | None = None) -> PgBouncer:
            return started.enter_context(PgBouncer(url, pool_size=pool_size, settings=settings))

        yield start
