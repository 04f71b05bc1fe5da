"""Starts the children of a worker, through the guard beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from forge_jobs.runtime.children.child import GONE_S, Child, Exit
from forge_jobs.runtime.children.guard import END, FRAME, START
from forge_jobs.runtime.children.pipes import Inlet, Outlet
from forge_jobs.storage.error import ForgeError

log = logging.getLogger("forge_jobs.children")

GUARD: Final = Path(__file__).with_name("guard.py")
START_S: Final = 10.0
"""How long starting a child may take, exec included: on a network file system it may hang."""
LOST_WAIT_S: Final = 0.5
KILLED: Final = Exit(signal=9)


class ChildError(ForgeError):
    """A child could not be started. The message says what failed, with which value."""


class Children:
    """The child processes of one worker on one event loop. The guard is started with the first of them."""

    def __init__(self) -> None:
        self._guard: GuardLink | None = None
        self._closed = False

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None = None,
        stdin: bool = False,
        private: bool = False,
        rlimits: Mapping[str, int] | None = None,
    ) -> Child:
        """Start a program, never through a shell, in a session and group of its own; it runs when this returns.

        It has `env` and nothing else as its environment, default signals, and no descriptor but these: input (null
        unless `stdin`), output, error output, and with `private` 3 to read and 4 to write. A name without a slash is
        looked up in the PATH of `env`. `rlimits` are names as in `resource.RLIMIT_*` without the prefix: {"AS": bytes}.

        Raises:
            ChildError: it could not be started.
        """
        spec = {"argv": list(argv), "env": dict(env), "cwd": cwd and os.fspath(cwd), "rlimits": dict(rlimits or {})}
        _check(spec)
        if self._closed:
            raise ChildError(f"spawn {argv[0]!r}: the worker is shutting down")
        if self._guard is None or self._guard.lost:
            self._guard = GuardLink()
        return await self._guard.start(spec, stdin=stdin, private=private)

    @property
    def running(self) -> list[Child]:
        """Those that have not ended."""
        watched = self._guard.watched if self._guard is not None else []
        return [child for child in watched if child.pid and child.running]

    async def close(self) -> None:
        """End every child's group, SIGTERM, 2 s, SIGKILL, and the guard. No child can be started after."""
        self._closed = True
        if self._guard is not None:
            await self._guard.close()


class GuardLink:
    """The connection to a guard, and the children that it watches."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [_python(), "-I", "-S", str(GUARD), str(theirs.fileno())]
            # Its streams are null: it may outlive the worker by 3 s and must not hold the worker's output open.
            null = subprocess.DEVNULL
            try:
                self._process = subprocess.Popen(
                    command, pass_fds=[theirs.fileno()], start_new_session=True, stdin=null, stdout=null, stderr=null
                )
            except OSError as error:
                ours.close()
                raise ChildError(f"the guard of child processes could not be started: {error}") from error
        ours.setblocking(False)
        self._channel = ours
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours, self._receive)
        self._buffer = b""
        self._number = 0
        self._children: dict[int, Child] = {}
        self._starting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.lost = False
        """The guard is gone, and its children with it."""

    @property
    def watched(self) -> list[Child]:
        """Those of which something may be left."""
        return list(self._children.values())

    async def start(self, spec: dict[str, Any], *, stdin: bool, private: bool) -> Child:
        self._number += 1
        number = self._number
        with contextlib.ExitStack() as ours:
            child = self._send_start(number, spec, ours, stdin=stdin, private=private)
            answered = self._starting[number] = self._loop.create_future()
            try:
                async with asyncio.timeout(START_S):
                    answer = await answered
            except BaseException as error:
                self._end(number, 0)
                if isinstance(error, TimeoutError):
                    raise ChildError(f"spawn {spec['argv'][0]!r}: it did not start within {START_S:g} s") from error
                raise
            finally:
                del self._starting[number]
            if "pid" not in answer:
                raise ChildError(_refusal(spec, answer))
            child.pid = answer["pid"]
            ours.pop_all()
            return child

    def _send_start(
        self, number: int, spec: dict[str, Any], ours: contextlib.ExitStack, *, stdin: bool, private: bool
    ) -> Child:
        with contextlib.ExitStack() as theirs:
            try:
                child, descriptors = self._wire(number, theirs, ours, stdin=stdin, private=private)
                file = theirs.enter_context(_description(spec))
                frame = FRAME.pack(START, len(descriptors) + 1, number, 0)
                socket.send_fds(self._channel, [frame], [file.fileno(), *descriptors])
            except OSError as error:
                raise ChildError(f"spawn {spec['argv'][0]!r}: {error}") from error
        self._children[number] = child
        return child

    def _wire(
        self, number: int, theirs: contextlib.ExitStack, ours: contextlib.ExitStack, *, stdin: bool, private: bool
    ) -> tuple[Child, list[int]]:
        """The child with its pipes, and the descriptors for its side in the order of their places."""

        def outlet() -> tuple[Outlet, int]:
            read, write = os.pipe()
            theirs.callback(os.close, write)
            end = Outlet(read)
            ours.callback(end.close)
            return end, write

        def inlet() -> tuple[Inlet, int]:
            read, write = os.pipe()
            theirs.callback(os.close, read)
            end = Inlet(write)
            ours.callback(end.close)
            return end, read

        source: Inlet | None = None
        if stdin:
            source, first = inlet()
        else:
            first = os.open(os.devnull, os.O_RDONLY)
            theirs.callback(os.close, first)
        (stdout, second), (stderr, third) = outlet(), outlet()
        places = [first, second, third]
        pair: tuple[Inlet, Outlet] | None = None
        if private:
            (to_child, fourth), (from_child, fifth) = inlet(), outlet()
            pair, places = (to_child, from_child), [*places, fourth, fifth]
        return Child(number, source, stdout, stderr, pair, self._end), places

    def _end(self, number: int, term_s: float) -> None:
        try:
            self._channel.send(FRAME.pack(END, 0, number, round(term_s * 1000)))
        except OSError:
            self._lose()

    def _receive(self) -> None:
        try:
            data = self._channel.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, answer: dict[str, Any]) -> None:
        number = answer["n"]
        starting, child = self._starting.get(number), self._children.get(number)
        if ("pid" in answer or "error" in answer) and starting is not None and not starting.done():
            starting.set_result(answer)
        if child is not None and "status" in answer:
            child.has_exited(Exit.of_status(answer["status"]))
        if child is not None and ("gone" in answer or "error" in answer):
            del self._children[number]
            child.is_gone()

    def _lose(self) -> None:
        """The guard ended. On Linux the kernel has killed its children; elsewhere, and for what they started, this."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._channel)
        self._channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LOST_WAIT_S)  # it has closed its socket: it is ending or over
        if self._children:
            log.error("guard_lost children=%d", len(self._children))
        for child in self._children.values():
            if child.pid and child.exit is None:
                with contextlib.suppress(OSError):
                    os.killpg(child.pid, 9)
            child.has_exited(KILLED)
            child.is_gone()
        self._children.clear()
        for starting in self._starting.values():
            if not starting.done():
                starting.set_result({"error": "guard", "errno": 0})

    async def close(self) -> None:
        """Shut the connection, which tells the guard to end everything; wait until it has."""
        watched = self.watched
        if not self.lost:
            self._channel.shutdown(socket.SHUT_WR)
        until = time.monotonic() + GONE_S + 1
        while self._process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(0.005)
        if self._process.poll() is None:
            log.error("guard_stuck pid=%d", self._process.pid)
            self._process.kill()
            self._process.wait()
        self._children.clear()
        self._lose()
        for child in watched:
            child.has_exited(KILLED)
            child.is_gone()


def _description(spec: dict[str, Any]) -> IO[bytes]:
    """An open file that tells the guard what to start. A frame is too small for it, a list of processes too public."""
    file: IO[bytes] = (
        os.fdopen(os.memfd_create("forge-jobs-child"), "w+b")
        if hasattr(os, "memfd_create")
        else tempfile.TemporaryFile()  # noqa: SIM115
    )
    file.write(json.dumps(spec).encode())
    file.flush()
    file.seek(0)
    return file


def _check(spec: dict[str, Any]) -> None:
    """What the system would refuse, or read as something else."""
    if not spec["argv"] or not all(isinstance(part, str) for part in spec["argv"]):
        raise ChildError(f"argv {repr(spec['argv'])[:200]} must be a list of at least one string")
    for text in (*spec["argv"], *spec["env"], *spec["env"].values(), spec["cwd"] or ""):
        if "\0" in text:
            raise ChildError(f"spawn {spec['argv'][0]!r}: {text[:80]!r} holds a NUL character")
    for name in spec["env"]:
        if not name or "=" in name:
            raise ChildError(f"spawn {spec['argv'][0]!r}: {name[:80]!r} is no name of a variable")


def _refusal(spec: dict[str, Any], answer: dict[str, Any]) -> str:
    match answer["error"]:
        case "chdir":
            what = f" in {spec['cwd']!r}"
        case "rlimit":
            what = f" with limits {spec['rlimits']!r}"
        case "guard":
            return f"spawn {spec['argv'][0]!r}: the guard of child processes ended"
        case _:
            what = ""
    reason = os.strerror(answer["errno"]) if answer["errno"] else "its description is not legal"
    return f"spawn {spec['argv'][0]!r}{what}: {reason}"


def _python() -> str:
    if not sys.executable:
        raise ChildError("child processes need sys.executable, which this program's interpreter does not know")
    return sys.executable
