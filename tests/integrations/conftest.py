"""Stores for the integrations: a file, and a database of a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forge_jobs.testing.postgres import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running
