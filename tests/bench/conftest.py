"""A server for the scratch schemas of all benchmarks here, without waiting for its disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forge_jobs.testing.postgres import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def server_url(server: Server) -> Iterator[str]:
    """An empty database."""
    url = server.new_database()
    yield url
    server.drop_database(url)
