"""The worker's ends of a child's pipes. They never block the event loop and never wait for whoever else holds one."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
from collections.abc import Callable
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
PIPE_BYTES_MAX: Final = 1024 * 1024
"""The most that a pipe holds (Linux lets unprivileged processes make it that large)."""


class Outlet:
    """What the child writes. Read by `listen`, or not at all: then the child waits when the pipe is full."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._on_data: Callable[[bytes], None] | None = None
        self._reading = False
        self.ended = False
        """The end was reached: every holder of the other end closed it."""

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def listen(self, on_data: Callable[[bytes], None]) -> None:
        """Call `on_data` with each chunk as it comes, at most 64 KiB, and with b"" at the end."""
        self._on_data = on_data
        self.resume()

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        if not self._reading and not self.closed and not self.ended and self._on_data is not None:
            self._reading = True
            self._loop.add_reader(self._fd, self.read_once)

    def read_once(self) -> bool:
        """Hand over what is there, one chunk of it; False if nothing is, or the end is reached."""
        if self.closed or self.ended or self._on_data is None:
            return False
        try:
            data = os.read(self._fd, CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self.pause()
            self.ended = True
        self._on_data(data)
        return bool(data)

    def read_rest(self) -> None:
        """Hand over what an exited child left in the pipe, without waiting for others that hold it."""
        for _ in range(PIPE_BYTES_MAX // CHUNK_BYTES):
            if not self.read_once():
                return

    def close(self) -> None:
        if not self.closed:
            self.pause()
            os.close(self._fd)
            self._fd = -1


class Inlet:
    """What the child reads. What it does not take yet is kept here: the writer bounds how much that may be."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._kept = memoryview(b"")
        self._closing = False
        self._taken: asyncio.Future[None] | None = None
        self.broken = False
        """Nobody reads it any longer."""

    @property
    def closed(self) -> bool:
        return self._fd < 0

    @property
    def untaken_bytes(self) -> int:
        """How much of what was written the child has not read, whether or not it lives. 0 where that is not known."""
        if self.closed:
            return 0
        try:
            in_pipe = int.from_bytes(fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        except OSError:
            in_pipe = 0
        return in_pipe + len(self._kept)

    def write(self, data: bytes) -> int:
        """Send `data` after what is kept already; how many bytes went out at once.

        A child that is gone shows as `broken`, no exception is raised: its exit says more.
        """
        if self.closed or self.broken or self._closing:
            return 0
        if self._kept:
            self._kept = memoryview(bytes(self._kept) + data)
            return 0
        sent = self._send(memoryview(data))
        if sent < len(data) and not self.broken:
            self._kept = memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._on_writable)
        return sent

    async def drain(self) -> None:
        """Wait until the child, or rather its pipe, has taken everything, or nobody will."""
        if self._kept and not self.broken and not self.closed:
            if self._taken is None:
                self._taken = self._loop.create_future()
            await asyncio.shield(self._taken)

    def close_when_sent(self) -> None:
        """Let the child see the end of its input after what is kept."""
        self._closing = True
        if not self._kept:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self._forget()
            os.close(self._fd)
            self._fd = -1

    def _send(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.broken = True
            return 0

    def _on_writable(self) -> None:
        self._kept = self._kept[self._send(self._kept) :]
        if self.broken or not self._kept:
            self._forget()
            if self._closing:
                self.close()

    def _forget(self) -> None:
        if self._kept or self._taken is not None:
            self._kept = memoryview(b"")
        self._loop.remove_writer(self._fd)
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)
        self._taken = None
