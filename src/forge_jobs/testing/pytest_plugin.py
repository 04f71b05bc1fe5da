"""Fixtures for pytest; they are there once forge-jobs is installed.

    async def test_a_mail_is_sent(forge_storage, forge_handlers):
        await forge_storage.jobs.enqueue(EnqueueRequest("mail", {"to": "a@example.org"}, queue="default"))
        assert (await drain(forge_storage, forge_handlers)).counts == {"done": 1}

`forge_storage` is an empty store of this test alone, on `forge_clock`; it is async and needs pytest-asyncio (or anyio).
`forge_url` and `forge_config` are for programs that open it themselves, such as those with a `SyncQueue`.
`forge_handlers` is an empty registry: a project's conftest.py overrides it with its own.

`--forge-backend` chooses a file (`sqlite`), a schema on a PostgreSQL server (`postgresql`) or one after the other
(`both`). The server is the one that `--forge-postgres` or FORGE_TEST_POSTGRES names, else a throw-away one of this run.
Where there is none the test is skipped, and fails where CI is set, as it must not go unnoticed there.

This module is imported in every run of pytest, so it imports nothing before a fixture is used: neither time is lost nor
is a module loaded before coverage looks.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from forge_jobs import HandlerRegistry, Storage, StoreConfig
    from forge_jobs.testing import ManualClock

SERVER: Final = "FORGE_TEST_POSTGRES"
SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"
BOTH: Final = "both"
PREFIX: Final = "forge_test_"

if TYPE_CHECKING or importlib.util.find_spec("pytest_asyncio") is not None:
    from pytest_asyncio import fixture as async_fixture
else:
    async_fixture = pytest.fixture


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("forge-jobs")
    group.addoption(
        "--forge-backend",
        choices=(SQLITE, POSTGRESQL, BOTH),
        default=SQLITE,
        help="the store of forge_storage: a SQLite file, a PostgreSQL schema, or both in turn (sqlite)",
    )
    group.addoption(
        "--forge-postgres",
        metavar="URL",
        default=os.environ.get(SERVER),
        help=f"a PostgreSQL database to make schemas in; else {SERVER}, else a throw-away server",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "forge_backend" in metafunc.fixturenames and metafunc.config.getoption("--forge-backend") == BOTH:
        marks = metafunc.definition.iter_markers("parametrize")
        if not any("forge_backend" in str(mark.args[:1]) for mark in marks):
            metafunc.parametrize("forge_backend", [SQLITE, POSTGRESQL], indirect=True)


@pytest.fixture
def forge_backend(request: pytest.FixtureRequest) -> str:
    """`sqlite` or `postgresql`: what the store of this test is."""
    chosen: str = getattr(request, "param", None) or request.config.getoption("--forge-backend")
    return chosen


@pytest.fixture
def forge_clock() -> ManualClock:
    """The store's clock. It stands until the test moves it."""
    from forge_jobs.testing import ManualClock

    return ManualClock()


@pytest.fixture
def forge_handlers() -> HandlerRegistry:
    """An empty registry; override it with that of the program."""
    from forge_jobs import HandlerRegistry

    return HandlerRegistry()


@pytest.fixture
def forge_url(forge_backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of this test's store. On PostgreSQL it takes `forge_config` as well to open it."""
    if forge_backend == SQLITE:
        return f"sqlite:///{tmp_path / 'forge-jobs.db'}"
    url: str = request.getfixturevalue("_forge_server")
    return url


@pytest.fixture
def forge_config(forge_backend: str, forge_url: str) -> Iterator[StoreConfig]:
    """How this test's store is opened: on PostgreSQL, in a schema of its own, which is gone after the test."""
    from forge_jobs import StoreConfig

    if forge_backend == SQLITE:
        yield StoreConfig()
        return
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from forge_jobs.ids import new_id
    from forge_jobs.storage.open import drop_store

    config = StoreConfig(schema=f"{PREFIX}{new_id().lower()}")
    yield config
    with ThreadPoolExecutor(1) as elsewhere:  # the event loop of this thread belongs to the tests
        elsewhere.submit(asyncio.run, drop_store(forge_url, config=config)).result()


@async_fixture
async def forge_storage(forge_url: str, forge_config: StoreConfig, forge_clock: ManualClock) -> AsyncIterator[Storage]:
    """An empty store, open during the test."""
    from forge_jobs import open_storage

    async with open_storage(forge_url, config=forge_config, clock=forge_clock) as storage:
        yield storage


@pytest.fixture(scope="session")
def _forge_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The database that schemas are made in: a named one, or one of this run (with xdist, of this worker)."""
    if importlib.util.find_spec("psycopg") is None:
        _without_postgresql("there is no psycopg: pip install 'forge-jobs[postgres]'")
    named = request.config.getoption("--forge-postgres")
    if named:
        yield named
        return
    from forge_jobs.testing.postgres import Server

    try:
        server = Server().__enter__()
    except RuntimeError as error:
        _without_postgresql(f"{error}; or name a database with --forge-postgres")
    try:
        yield server.new_database()
    finally:
        server.__exit__(None, None, None)


def _without_postgresql(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"PostgreSQL is needed where CI is set: {reason}", pytrace=False)
    pytest.skip(f"PostgreSQL is not here: {reason}")
