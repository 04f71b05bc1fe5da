"""A network between a client and PostgreSQL that breaks when told.

    with FaultProxy(server.url) as proxy, psycopg.connect(proxy.url_through(server.url)) as connection:
        connection.execute("INSERT ...")
        proxy.swallow_answer_after(b"COMMIT")
        connection.commit()  # raises OperationalError, and is committed

The proxy runs on a thread with a loop of its own, so that plain and async tests can use it; what it is told has
happened when the call returns. It reads PostgreSQL's protocol message by message, so that it can cut at an exact place,
and says "no" to clients that wish for encryption.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

from forge_jobs.testing.throwaway import LOOPBACK, reserved_port

T = TypeVar("T")

CONTROL_LIMIT_S: Final = 5.0
POSTGRES_PORT: Final = 5432
BACKLOG: Final = 100
MOST_UNDERWAY: Final = 1_000
"""How many messages one connection may have underway in one direction before the proxy stops reading."""

# The protocol, as https://www.postgresql.org/docs/current/protocol-message-formats.html has it: what a client may ask
# before its start-up packet, types of messages from the client, types of messages from the server.
ENCRYPTION_REQUESTS, NOT_ENCRYPTED = (80877103, 80877104), b"N"
QUERY, EXECUTE, FUNCTION_CALL, SYNC = b"Q", b"E", b"F", b"S"
READY_FOR_QUERY, COPY_IN_RESPONSE = b"Z", b"G"
ENDS_OF_STATEMENTS = (b"C", b"I", b"E", b"s")  # complete, empty, failed, suspended with more rows to come


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What passed since the proxy began: connections that were accepted, bytes that were passed on, statements that the
    server has answered, failed ones too. Several in one message count one by one, those inside functions do not."""

    connections: int
    open_connections: int
    bytes_to_server: int
    bytes_to_client: int
    statements: int
    swallowed: int


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a database."""
    parts = urlsplit(url)
    return parts.hostname or LOOPBACK, parts.port or POSTGRES_PORT


def by_way_of(port: int, url: str, *, server: tuple[str, int]) -> str:
    """The URL of the same database for who comes through `port` of this host, which leads to `server`.

    Raises:
        ValueError: the database is on another server.
    """
    if address_of(url) != server:
        raise ValueError(f"{url} is not on {server[0]}:{server[1]}, which is where port {port} leads")
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{LOOPBACK}:{port}").geturl()


class FaultProxy:
    """A proxy on a port of its own to the server that `url` names; it runs inside a `with` block."""

    def __init__(self, url: str) -> None:
        self._upstream = address_of(url)
        self._faults = _Faults()
        self._connections = 0
        self._open: set[asyncio.Task[None]] = set()
        self._listening: socket.socket | None = None

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._port = opened.enter_context(reserved_port())
            started: Future[None] = Future()
            thread = threading.Thread(target=asyncio.run, args=[self._run(started)], name="fault-proxy", daemon=True)
            thread.start()
            started.result(CONTROL_LIMIT_S)
            opened.callback(thread.join, CONTROL_LIMIT_S)
            opened.callback(lambda: self._wait(self._close()))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def url_through(self, url: str) -> str:
        """The same database, by way of the proxy.

        Raises:
            ValueError: it is on another server than the one behind the proxy.
        """
        return by_way_of(self._port, url, server=self._upstream)

    @property
    def traffic(self) -> Traffic:
        return self._do(self._traffic)

    def cut(self) -> None:
        """Reset every connection on both sides. New ones are accepted."""
        self._wait(self._cut())

    def refuse(self) -> None:
        """Refuse new connections as a server does that is down. Open ones go on."""
        self._do(self._stop_listening)

    def accept(self) -> None:
        """Accept new connections again."""
        self._wait(self._listen())

    def freeze(self) -> None:
        """Pass on nothing in either direction, not even that a side is gone, and keep the connections: a black hole.

        Each side's packets are still acknowledged by this host, so keepalive and TCP user timeout notice nothing: only
        a deadline of the program's own does.
        """
        self._do(self._faults.flowing.clear)

    def thaw(self) -> None:
        """Pass everything on again, first what was held back."""
        self._do(self._faults.flowing.set)

    def delay(self, *, to_server_s: float = 0.0, to_client_s: float = 0.0) -> None:
        """From now on pass on each message that much later, in order. Without arguments: at once."""
        self._do(lambda: self._faults.delay_s.update({Towards.SERVER: to_server_s, Towards.CLIENT: to_client_s}))

    def swallow_answer_after(self, marker: bytes, *, following: bytes | None = None) -> None:
        """Once, let the server do what a client asks with `marker`, then cut the connection in place of the answer.

        With `following`, only on a connection whose client said that before, since this call: `b"COMMIT"` alone could
        be anybody's.

        The marker is looked for in each message of each client, as it is on the wire. When the connection is cut, the
        server has answered the whole request (up to its ReadyForQuery), so that a COMMIT is done. Answers to earlier
        requests reach the client.

        In the extended protocol a statement's text is sent when it is prepared: the answer to its next execution is
        swallowed. Executing it again by name sends no text.
        """
        self._do(lambda: self._faults.set_trap(_Trap(marker, _Swallow.ANSWER, following)))

    def swallow_request(self, marker: bytes) -> None:
        """Once, cut the connection in place of the client's message with `marker`, which the server never gets.

        What was said last, this or `swallow_answer_after`, counts.
        """
        self._do(lambda: self._faults.set_trap(_Trap(marker, _Swallow.REQUEST)))

    def _do(self, act: Callable[[], T]) -> T:
        """Call `act` on the proxy's thread; its result."""

        async def call() -> T:
            return act()

        return self._wait(call())

    def _wait(self, act: Coroutine[Any, Any, T]) -> T:
        """Run `act` on the proxy's thread to its end; its result."""
        return asyncio.run_coroutine_threadsafe(act, self._loop).result(CONTROL_LIMIT_S)

    async def _run(self, started: Future[None]) -> None:
        """The life of the proxy's thread."""
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        try:
            await self._listen()
        except OSError as error:
            started.set_exception(error)
            return
        async with asyncio.TaskGroup() as self._tasks:
            started.set_result(None)
            await self._closing.wait()

    async def _close(self) -> None:
        self._stop_listening()
        await self._cut()
        self._closing.set()

    async def _cut(self) -> None:
        cut = list(self._open)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)

    async def _listen(self) -> None:
        """Accept connections: without `asyncio.Server`, which loses a socket when it is closed while it accepts one."""
        if self._listening is None:
            self._listening = socket.create_server((LOOPBACK, self._port), backlog=BACKLOG)
            self._listening.setblocking(False)
            self._loop.add_reader(self._listening, self._welcome, self._listening)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _welcome(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except OSError:  # it went away before it was accepted
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else every answer is 40 ms late
        self._connections += 1
        task = self._tasks.create_task(self._carry(client))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: _reset(client))  # cut before its first step, it would not do so itself

    async def _carry(self, accepted: socket.socket) -> None:
        """One connection, from beginning to end."""
        with ExitStack() as ends:
            client = _Peer(*await asyncio.open_connection(sock=accepted))
            ends.callback(client.reset)
            try:
                server = _Peer(*await asyncio.open_connection(*self._upstream))
            except OSError:
                return
            ends.callback(server.reset)
            await _Connection(self._faults, client, server).carry()

    def _traffic(self) -> Traffic:
        return Traffic(
            connections=self._connections,
            open_connections=len(self._open),
            bytes_to_server=self._faults.passed_bytes[Towards.SERVER],
            bytes_to_client=self._faults.passed_bytes[Towards.CLIENT],
            statements=self._faults.statements,
            swallowed=self._faults.swallowed,
        )


def _end_with_reset(connection: socket.socket) -> None:
    """Have it end with RST, once it is closed."""
    with suppress(OSError):  # of a socket that is closed
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _reset(connection: socket.socket) -> None:
    _end_with_reset(connection)
    connection.close()


class Towards(Enum):
    """The direction of a message."""

    SERVER = auto()
    CLIENT = auto()


class _Swallow(Enum):
    REQUEST = auto()
    ANSWER = auto()


@dataclass(frozen=True, slots=True, eq=False)
class _Trap:
    """What is swallowed when a client's message contains the marker, after one that contained `following`."""

    marker: bytes
    swallow: _Swallow
    following: bytes | None = None


class _Faults:
    """What is done to the messages of all connections, and what passed."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.delay_s = dict.fromkeys(Towards, 0.0)
        self.passed_bytes = dict.fromkeys(Towards, 0)
        self.statements = 0
        self.swallowed = 0
        self._trap: _Trap | None = None

    def set_trap(self, trap: _Trap) -> None:
        self._trap = trap

    def spring_trap(self, message: bytes, connection: _Connection) -> _Swallow | None:
        """What of this message of a client is to be swallowed. A trap springs once."""
        trap = self._trap
        if trap is None:
            return None
        if trap.following is not None and connection.set_off is not trap:
            if trap.following in message:
                connection.set_off = trap
            return None
        if trap.marker not in message:
            return None
        self._trap = None
        return trap.swallow


class _End(Enum):
    """How a connection ends: as one side ended it, or by reset of both."""

    CLOSED = auto()
    CUT = auto()


class _Ended(Exception):
    def __init__(self, how: _End) -> None:
        super().__init__(how)
        self.how = how


@dataclass(frozen=True, slots=True)
class _Peer:
    """A client or the server, at its end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, *, type_bytes: int = 1) -> bytes | None:
        """The next message: its type, its length without the type in four bytes, its text. None at the end."""
        try:
            head = await self.reader.readexactly(type_bytes + 4)
            return head + await self.reader.readexactly(int.from_bytes(head[type_bytes:], "big") - 4)
        except asyncio.IncompleteReadError:
            return None

    async def close(self) -> None:
        """Say goodbye, after all that was written."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Send RST and drop what was not sent; nothing if the connection is closed."""
        _end_with_reset(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()


@dataclass(slots=True)
class _Request:
    """Something that the server answers with one ReadyForQuery."""

    by_sync: bool
    swallow_answer: bool


@dataclass(slots=True)
class _Connection:
    """A client's connection and the server's, and the messages underway between them."""

    faults: _Faults
    client: _Peer
    server: _Peer
    underway: dict[Towards, asyncio.Queue[tuple[float, bytes | _End]]] = field(
        default_factory=lambda: {towards: asyncio.Queue(MOST_UNDERWAY) for towards in Towards}
    )
    requests: deque[_Request] = field(default_factory=deque)
    """What the server has not answered yet, oldest first."""
    marked: bool = False
    """The marker was seen, and nothing was executed since."""
    swallow_next: bool = False
    """The answer to the next request is to be swallowed."""
    set_off: _Trap | None = None
    """The trap whose `following` was said here."""

    async def carry(self) -> None:
        """Pass messages until one side ends the connection and the other side knows, or until it is to be cut."""
        how = _End.CUT
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_client())
                tasks.create_task(self._read_server())
                tasks.create_task(self._pass_on(Towards.SERVER, self.server))
                tasks.create_task(self._pass_on(Towards.CLIENT, self.client))
        except* _Ended as ended:
            ways = {error.how for error in ended.exceptions if isinstance(error, _Ended)}
            how = _End.CUT if _End.CUT in ways else _End.CLOSED
        except* OSError:
            how = _End.CUT
        if how is _End.CLOSED:
            await self.client.close()
            await self.server.close()

    async def _read_client(self) -> None:
        packet = await self._startup_packet()
        if packet is not None:
            self.requests.append(_Request(by_sync=False, swallow_answer=False))
            await self._put(Towards.SERVER, packet)
            await self._read_requests()
        await self._put(Towards.SERVER, _End.CLOSED)

    async def _startup_packet(self) -> bytes | None:
        """The first packet for the server; it has no type."""
        while packet := await self.client.read(type_bytes=0):
            if int.from_bytes(packet[4:8], "big") not in ENCRYPTION_REQUESTS:
                return packet
            await self._put(Towards.CLIENT, NOT_ENCRYPTED)
        return None

    async def _read_requests(self) -> None:
        while message := await self.client.read():
            match self.faults.spring_trap(message, self):
                case _Swallow.REQUEST:
                    self.faults.swallowed += 1
                    await self._put(Towards.SERVER, _End.CUT)
                    return
                case _Swallow.ANSWER:
                    self.marked = True
            self._note_request(message[:1])
            await self._put(Towards.SERVER, message)

    def _note_request(self, kind: bytes) -> None:
        if self.marked and kind in (QUERY, EXECUTE, FUNCTION_CALL):
            self.marked, self.swallow_next = False, True
        if kind in (QUERY, FUNCTION_CALL, SYNC):
            self.requests.append(_Request(by_sync=kind == SYNC, swallow_answer=self.swallow_next))
            self.swallow_next = False

    async def _read_server(self) -> None:
        while message := await self.server.read():
            kind = message[:1]
            self.faults.statements += kind in ENDS_OF_STATEMENTS
            swallow = bool(self.requests) and self.requests[0].swallow_answer
            if not swallow or kind == COPY_IN_RESPONSE:
                await self._put(Towards.CLIENT, message)
            if kind == COPY_IN_RESPONSE and self.requests and self.requests[0].by_sync:
                # The server skips a Sync that comes before the data; it answers the one that comes after.
                self.swallow_next = self.requests.popleft().swallow_answer
            elif kind == READY_FOR_QUERY:
                self.requests.popleft()
                if swallow:
                    self.faults.swallowed += 1
                    await self._put(Towards.CLIENT, _End.CUT)
                    return
        await self._put(Towards.CLIENT, _End.CLOSED)

    async def _put(self, towards: Towards, what: bytes | _End) -> None:
        """Send a message, or an end, on its way."""
        due = asyncio.get_running_loop().time() + self.faults.delay_s[towards]
        await self.underway[towards].put((due, what))

    async def _pass_on(self, towards: Towards, peer: _Peer) -> None:
        """Deliver what is underway, each message when it is due."""
        while True:
            due, what = await self.underway[towards].get()
            if (early_s := due - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(early_s)
            await self.faults.flowing.wait()
            if isinstance(what, _End):
                raise _Ended(what)
            peer.writer.write(what)
            self.faults.passed_bytes[towards] += len(what)
            await peer.writer.drain()
