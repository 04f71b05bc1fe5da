"""Stores for the integrations: a file, and a database of a real server, both copied from one that is made once."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from forge_jobs import open_storage
from forge_jobs.testing.postgres import Server

from .libraries import LIBRARIES, POSTGRESQL, Library, Shop

ORDERS = "CREATE TABLE orders (id integer)"


async def _create(url: str) -> None:
    async with open_storage(url):
        pass


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def database_template(server: Server) -> str:
    url = server.new_database()
    asyncio.run(_create(url))
    with psycopg.connect(url) as connection:
        connection.execute(ORDERS)
    return url


@pytest.fixture(scope="session")
def file_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "jobs.db"
    asyncio.run(_create(f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(ORDERS)
        connection.commit()
    return path


@pytest.fixture
def database(server: Server, database_template: str) -> Iterator[str]:
    url = server.new_database(database_template)
    yield url
    server.drop_database(url)


@pytest.fixture
def file(file_template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(file_template, tmp_path / "jobs.db"))


@pytest.fixture
def shop(request: pytest.FixtureRequest, library: Library) -> Shop:
    """A store with a table of orders, used through one library."""
    if library.store == POSTGRESQL:
        return Shop(library, request.getfixturevalue("database"))
    return Shop(library, f"sqlite:///{request.getfixturevalue('file')}")


@pytest.fixture(params=LIBRARIES, ids=str)
def library(request: pytest.FixtureRequest) -> Library:
    """Each library on each store that it knows."""
    assert isinstance(request.param, Library)
    return request.param
