"""Tests of the blocking façade have a file of their own, and leave no thread behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forge_jobs import StoreConfig, SyncQueue

from .stage import until


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def url(database: Path) -> str:
    return f"sqlite:///{database}"


@pytest.fixture
def queue(url: str) -> Iterator[SyncQueue]:
    """A queue on the file, not opened yet; closed after the test."""
    made = SyncQueue(url, config=StoreConfig(event_flush_s=600))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    until(lambda: not [thread.name for thread in threading.enumerate() if thread.name.startswith("forge-")])
