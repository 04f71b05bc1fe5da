"""One server for the tests of the examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forge_jobs.testing.postgres import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running
