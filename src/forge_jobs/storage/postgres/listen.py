"""Wake-ups between machines: hints by NOTIFY, the truth by polling.

One connection per process listens, and tells others, on a thread of its own: notifications are sent after the commit
they tell of, never within it (a commit with NOTIFY takes a lock of the whole database), and at most one per 5 ms.
Behind a pooler nobody listens. Elsewhere the listener notifies itself, at the start and every minute; as long as
nothing comes back workers poll at full rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

import psycopg

from forge_jobs.storage.postgres import errors
from forge_jobs.storage.postgres.connection import Connection, Connector

log = logging.getLogger("forge_jobs.wake")

OnWake = Callable[[frozenset[str] | None], None]
PAYLOAD_BYTES: Final = 200
COALESCE_S: Final = 0.005
PROBE_ANSWER_S: Final = 2.0
PROBE_EVERY_S: Final = 60.0
ANY: Final = "*"


class PostgresWake:
    """Implements `Wake` and `Storage.subscribe` for one server and schema."""

    def __init__(self, connector: Connector, schema: str) -> None:
        self._connector = connector
        self._channel = f"{schema}_wake"
        self._loop = asyncio.get_running_loop()
        self._subscribers: dict[str, OnWake] = {}
        self._listener: Listener | None = None
        self._closed = False

    @property
    def proven(self) -> bool:
        """Whether a notification of ours has come back lately."""
        return self._listener is not None and self._listener.proven

    @property
    def connected(self) -> bool:
        return self._listener is not None and self._listener.connected

    def due(self, queues: Collection[str] | None) -> None:
        named = None if queues is None else frozenset(queues)
        self._tell(named)
        if self._connector.config.notify and not self._closed:
            self._start().notify(named)

    def later(self, queues: Collection[str]) -> None:
        self._tell(frozenset(queues))

    def subscribe(self, host_id: str, on_wake: OnWake) -> Callable[[], None]:
        self._subscribers[host_id] = on_wake
        if self._connector.config.notify:
            self._start().listen()
        return lambda: self._subscribers.pop(host_id, None) and None

    def close(self) -> None:
        self._closed = True
        if self._listener is not None:
            self._listener.stop()

    def _start(self) -> Listener:
        if self._listener is None:
            self._listener = Listener(self._connector, self._channel, self._heard)
        return self._listener

    def _heard(self, queues: frozenset[str] | None) -> None:
        """On the listener's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closing
            self._loop.call_soon_threadsafe(self._tell, queues)

    def _tell(self, queues: frozenset[str] | None) -> None:
        for on_wake in list(self._subscribers.values()):
            on_wake(queues)


class Listener:
    """The thread that listens and notifies, on one connection that it replaces when it breaks."""

    def __init__(self, connector: Connector, channel: str, heard: OnWake) -> None:
        self._connector = connector
        self._channel = channel
        self._heard = heard
        self._lock = threading.Lock()
        self._to_tell: set[str] | None = None
        self._listening = False
        self._stopped = False
        self._poke_in, self._poke_out = socket.socketpair()
        self._poke_in.setblocking(False)
        self._poke_out.setblocking(False)
        self._connection: Connection | None = None
        self._told_at = 0.0
        self._probe: str | None = None
        self._probe_until = float("inf")
        self._probe_at = 0.0
        self._warned = False
        self.proven = False
        self._thread = threading.Thread(target=self._run, name="forge-postgres-listen", daemon=True)
        self._thread.start()

    # From any thread

    def notify(self, queues: frozenset[str] | None) -> None:
        """Tell all processes, soon."""
        with self._lock:
            first = self._to_tell is None
            told = self._to_tell = self._to_tell if self._to_tell is not None else set()
            told.update([ANY] if queues is None else queues)
        if first:
            self._poke()

    def listen(self) -> None:
        """Begin to listen."""
        self._listening = True
        self._poke()

    def stop(self) -> None:
        """Send what waits, then end."""
        self._stopped = True
        self._poke()
        self._thread.join(timeout=2.0)
        if self._thread.is_alive() and self._connection is not None:
            self._connection.cut()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def _poke(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._poke_in.send(b".")

    # On its thread

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._serve()
            except (psycopg.Error, OSError) as error:
                self._lost(error)
            except Exception:
                log.exception("listener_fault")
                time.sleep(1.0)
        self._tell_the_rest()
        self._close()
        self._poke_in.close()
        self._poke_out.close()

    def _serve(self) -> None:
        """Wait until there is something to do; connect when it needs a connection."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._poke_out, selectors.EVENT_READ)
            while not self._stopped:
                if self._connection is None and (self._listening or self._to_tell is not None):
                    selector.register(self._connect().raw.fileno(), selectors.EVENT_READ)
                for key, _ in selector.select(self._wait_s()):
                    if key.fileobj is self._poke_out:
                        self._take_pokes()
                    else:
                        self._receive()
                self._look_at_probe()
                self._tell()

    def _tell_the_rest(self) -> None:
        """What a program that enqueued and ended at once has not told yet, if the server is there."""
        with contextlib.suppress(psycopg.Error, OSError):
            if self._to_tell is not None and self._connection is None:
                self._connect()
            self._tell(at_once=True)

    def _connect(self) -> Connection:
        config = self._connector.config
        connection = self._connector.connect("listen", url=config.listen_url)
        self._connection = connection
        connection.raw.add_notify_handler(self._notified)
        if self._listening:
            self._listen(connection)
        return connection

    def _listen(self, connection: Connection) -> None:
        if connection.pooled:  # LISTEN would stay with a backend that is somebody else's a moment later
            self._probe_at = float("inf")
            self._unanswered()
            return
        connection.command(f'LISTEN "{self._channel}"')
        self._probe_at = time.monotonic()
        self._send_probe()
        self._heard(None)  # what happened while nobody listened

    def _take_pokes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._poke_out.recv(4096):
                pass
        if self._listening and self._probe_at == 0.0 and self._connection is not None:
            self._listen(self._connection)

    def _receive(self) -> None:
        assert self._connection is not None
        pgconn = self._connection.raw.pgconn
        pgconn.consume_input()
        while (notice := pgconn.notifies()) is not None:
            self._hear(notice.extra.decode(errors="replace"), notice.be_pid == pgconn.backend_pid)

    def _notified(self, notify: psycopg.Notify) -> None:
        """One that came with the answer to a statement."""
        assert self._connection is not None
        self._hear(notify.payload, notify.pid == self._connection.raw.info.backend_pid)

    def _hear(self, payload: str, own: bool) -> None:
        if payload.startswith("probe:"):
            if payload == self._probe:
                self._answered()
            return
        if own:
            return
        if payload == ANY:
            self._heard(None)
            return
        with contextlib.suppress(ValueError, TypeError):
            self._heard(frozenset(map(str, json.loads(payload))))

    def _wait_s(self) -> float | None:
        """How long nothing needs to be done."""
        if self._connection is None:
            return None
        now = time.monotonic()
        until = min(self._probe_until, self._probe_at + PROBE_EVERY_S if self._listening else float("inf"))
        if self._to_tell is not None:
            until = min(until, self._told_at + COALESCE_S)
        return None if until == float("inf") else max(until - now, 0.0)

    def _tell(self, *, at_once: bool = False) -> None:
        if self._to_tell is None or self._connection is None:
            return
        if not at_once and time.monotonic() < self._told_at + COALESCE_S:
            return
        with self._lock:
            told, self._to_tell = self._to_tell, None
        self._told_at = time.monotonic()
        payload = ANY if ANY in told else json.dumps(sorted(told))
        self._notify(payload if len(payload) <= PAYLOAD_BYTES else ANY)

    def _notify(self, payload: str) -> None:
        assert self._connection is not None
        self._connection.execute(
            "SELECT pg_notify(%(channel)s, %(payload)s)", {"channel": self._channel, "payload": payload}
        )

    # Is anything heard at all?

    def _look_at_probe(self) -> None:
        if not self._listening or self._connection is None:
            return
        now = time.monotonic()
        if now >= self._probe_until:
            self._unanswered()
        elif now >= self._probe_at + PROBE_EVERY_S:
            self._probe_at = now
            self._send_probe()

    def _send_probe(self) -> None:
        self._probe = f"probe:{os.urandom(8).hex()}"
        self._probe_until = time.monotonic() + PROBE_ANSWER_S
        self._notify(self._probe)

    def _answered(self) -> None:
        self._probe_until = float("inf")
        if self._warned:
            log.info("wake_mode: notifications arrive")
        self.proven, self._warned = True, False

    def _unanswered(self) -> None:
        self._probe_until = float("inf")
        self.proven = False
        if not self._warned:
            self._warned = True
            log.warning(
                "poll_mode: notifications do not arrive, so jobs are found by polling. Is there a pooler in "
                "transaction mode between? Give listen_url a direct connection",
            )

    def _lost(self, error: Exception) -> None:
        if not self._stopped:
            log.warning("listener_lost error=%s; jobs are found by polling", errors.away(error, self._connector.url))
        self._close()
        self.proven = False
        self._probe_at = 0.0
        self._probe_until = float("inf")

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
