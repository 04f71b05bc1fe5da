"""The real PgBouncer in transaction mode in front of a server, as Debian's package `pgbouncer` has it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from forge_jobs.testing.fault_proxy import address_of, by_way_of
from forge_jobs.testing.throwaway import LOOPBACK, OrdinaryUser, ServerFolder, reserved_port

START_LIMIT_S: Final = 10.0
STOP_LIMIT_S: Final = 10.0
LOOK_S: Final = 0.005


class PgBouncer:
    """A pooler on a port of its own, trusting everybody; it runs inside a `with` block.

    url: a database of the server behind it. pool_size: connections to each of the server's databases.
    settings: lines of the section `[pgbouncer]` on top.
    """

    def __init__(self, url: str, *, pool_size: int = 1, settings: Mapping[str, str] | None = None) -> None:
        self._upstream = address_of(url)
        self._settings = {"default_pool_size": str(pool_size), **(settings or {})}

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            user = OrdinaryUser.find()
            self._port = opened.enter_context(reserved_port())
            reaped = opened.enter_context(ExitStack())  # when the folder is closed, which ends the process
            folder = opened.enter_context(ServerFolder("forge-pgbouncer-", user, in_memory=True))
            self._log = folder.path / "log"
            self._process = self._start(user, folder)
            reaped.callback(self._process.wait, STOP_LIMIT_S)
            folder.stop_with(["kill", "-KILL", str(self._process.pid)])
            self._wait_until_it_listens()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def url_through(self, url: str) -> str:
        """The same database, by way of the pooler.

        Raises:
            ValueError: it is on another server than the one behind the pooler.
        """
        return by_way_of(self._port, url, server=self._upstream)

    @property
    def console_url(self) -> str:
        """The pooler's own database, for `SHOW POOLS` and the like; it speaks the simple query protocol only."""
        return f"postgresql://postgres@{LOOPBACK}:{self._port}/pgbouncer"

    def _start(self, user: OrdinaryUser, folder: ServerFolder) -> subprocess.Popen[bytes]:
        configuration = folder.path / "pgbouncer.ini"
        configuration.write_text(self._configuration())
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*user.argv, _program(), str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder.path,
                start_new_session=True,
            )

    def _configuration(self) -> str:
        host, port = self._upstream
        settings = {
            "listen_addr": LOOPBACK,
            "listen_port": str(self._port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            **self._settings,
        }
        databases = f"[databases]\n* = host={host} port={port} user=postgres\n"
        return databases + "[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection((LOOPBACK, self._port)).close()
                return
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PgBouncer does not run:\n{self._log.read_text()}") from None
                time.sleep(LOOK_S)


def _program() -> str:
    """Where pgbouncer is. The paths of ordinary users do not name Debian's folder for servers."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    found = shutil.which("pgbouncer", path=path)
    if found is None:
        raise RuntimeError("there is no PgBouncer on this machine: apt-get install pgbouncer")
    return found
