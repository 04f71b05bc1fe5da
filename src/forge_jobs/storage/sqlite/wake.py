"""Wake-ups on one host: hints by datagram, the truth by polling.

Each worker process binds a Unix socket in a directory beside the file; whoever commits something that is due
sends one datagram to each. Datagrams may be lost: a thread also polls `PRAGMA data_version`, which changes
with every commit of another connection and costs 3 µs, ever more rarely while nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from forge_jobs.storage.sqlite import connection as sqlite

log = logging.getLogger("forge_jobs.wake")

OnWake = Callable[[frozenset[str] | None], None]
DATAGRAM_BYTES: Final = 2_048
SOCKET_PATH_MAX: Final = 100
POLLING: Final = ((1.0, 0.02), (30.0, 0.05), (float("inf"), 0.5))
"""(quiet for less than, seconds between two polls)."""


class SqliteWake:
    """Implements `Wake` and `Storage.subscribe` for one file, or for one process (`database=None`)."""

    def __init__(self, database: Path | None) -> None:
        self._database = database
        self._directory = None if database is None else socket_directory(database)
        self._subscribers: dict[str, OnWake] = {}
        self._own: set[str] = set()
        self._sender: socket.socket | None = None
        self._seen: tuple[int, list[str]] = (-1, [])

    def due(self, queues: Collection[str] | None) -> None:
        named = None if queues is None else frozenset(queues)
        self._tell(named)
        if self._directory is not None:
            self._send(named)

    def later(self, queues: Collection[str]) -> None:
        self._tell(frozenset(queues))

    def subscribe(self, host_id: str, on_wake: OnWake) -> Callable[[], None]:
        self._subscribers[host_id] = on_wake
        stack = contextlib.ExitStack()
        stack.callback(self._subscribers.pop, host_id, None)
        if self._database is not None and self._directory is not None:
            loop = asyncio.get_running_loop()
            self._listen(loop, host_id, on_wake, stack)
            watch = _Watch(self._database, loop, on_wake)
            stack.callback(watch.stop)
        return stack.close

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _tell(self, queues: frozenset[str] | None) -> None:
        for on_wake in list(self._subscribers.values()):
            on_wake(queues)

    def _listen(
        self, loop: asyncio.AbstractEventLoop, host_id: str, on_wake: OnWake, stack: contextlib.ExitStack
    ) -> None:
        assert self._directory is not None
        path = self._directory / f"{host_id}.sock"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            listener.bind(str(path))
        except OSError as error:
            log.warning("poll_mode: no wake socket at %s (%s); jobs are found by polling", path, error)
            return
        self._own.add(path.name)

        def stop() -> None:
            loop.remove_reader(listener)
            listener.close()
            self._own.discard(path.name)
            with contextlib.suppress(OSError):
                path.unlink()

        loop.add_reader(listener, _receive, listener, on_wake)
        stack.callback(stop)

    def _send(self, queues: frozenset[str] | None) -> None:
        others = [name for name in self._listeners() if name not in self._own]
        if not others:
            return
        if self._sender is None:
            self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        message = b"" if queues is None else json.dumps(sorted(queues)).encode()
        if len(message) > DATAGRAM_BYTES:
            message = b""
        for name in others:
            path = f"{self._directory}/{name}"
            try:
                self._sender.sendto(message or b"*", path)
            except OSError as error:
                if error.errno in (errno.ECONNREFUSED, errno.ENOENT):  # its process died without a good-bye
                    with contextlib.suppress(OSError):
                        os.unlink(path)

    def _listeners(self) -> list[str]:
        """The sockets in the directory, listed again only when it changed."""
        assert self._directory is not None
        try:
            changed = self._directory.stat().st_mtime_ns
            if changed != self._seen[0]:
                names = [entry.name for entry in os.scandir(self._directory) if entry.name.endswith(".sock")]
                self._seen = (changed, names)
        except OSError:
            return []
        return self._seen[1]


def socket_directory(database: Path) -> Path:
    """Where the sockets of a file's processes are: beside it, or in a private place when that path is too long."""
    beside = database.with_name(database.name + "-wake")
    if len(os.fsencode(beside)) <= SOCKET_PATH_MAX - 32:
        return beside
    stat = database.stat()
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return base / f"forge-jobs-{os.getuid()}" / f"{stat.st_dev:x}-{stat.st_ino:x}"


def _receive(listener: socket.socket, on_wake: OnWake) -> None:
    queues: set[str] | None = set()
    while True:
        try:
            message = listener.recv(DATAGRAM_BYTES)
        except BlockingIOError:
            break
        except OSError as error:
            log.warning("wake_fault error=%s", error)
            break
        try:
            if queues is not None:
                queues.update(json.loads(message))
        except ValueError:
            queues = None
    on_wake(None if queues is None else frozenset(queues))


class _Watch:
    """A thread that notices commits of other connections."""

    def __init__(self, database: Path, loop: asyncio.AbstractEventLoop, on_wake: OnWake) -> None:
        self._database = database
        self._loop = loop
        self._on_wake = on_wake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forge-sqlite-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            connection = sqlite.connect(self._database)
        except Exception as error:
            log.warning("poll_mode: commits of other processes are not watched (%s)", error)
            return
        seen, since = None, time.monotonic()
        while not self._stop.wait(_pause(time.monotonic() - since)):
            try:
                version = connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as error:
                log.warning("watch_fault error=%s", getattr(error, "sqlite_errorname", error))
                continue
            if version != seen:
                seen, since = version, time.monotonic()
                with contextlib.suppress(RuntimeError):  # the loop is closing
                    self._loop.call_soon_threadsafe(self._wake)
        connection.close()

    def _wake(self) -> None:
        if not self._stop.is_set():
            self._on_wake(None)


def _pause(quiet_s: float) -> float:
    return next(pause for limit, pause in POLLING if quiet_s < limit)
