"""A child's output as lines, with a bound on whatever a child may do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from forge_jobs.limits import CHILD_LOG_LINE_BYTES, CHILD_LOG_LINES_PER_S


class LineTooLong(Exception):
    """A line is longer than allowed; the rest of the stream cannot be trusted."""


class Lines:
    """Puts lines together from chunks. Holds one unfinished line, at most `limit_bytes` and a chunk."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._unfinished = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that `data` finishes, without their ends. To be read to the end before the next call.

        Raises:
            LineTooLong: one is longer than the limit.
        """
        if not self._unfinished and data.count(b"\n") == 1 and data.endswith(b"\n"):  # nearly always
            if len(data) > self._limit:
                raise LineTooLong
            yield data[:-1]
            return
        *whole, rest = data.split(b"\n")
        if whole and self._unfinished:
            whole[0] = bytes(self._unfinished) + whole[0]
            self._unfinished.clear()
        self._unfinished += rest
        for line in whole:
            if len(line) >= self._limit:
                raise LineTooLong
            yield line
        if len(self._unfinished) >= self._limit:
            raise LineTooLong

    @property
    def unfinished(self) -> bool:
        return bool(self._unfinished)


class LogLines:
    """Error output on its way to the log: long lines are cut, and a flood of lines is counted instead, lest it fill the
    disk."""

    def __init__(self, emit: Callable[[str, int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._emit = emit
        self._clock = clock
        self._line = bytearray()
        self._cut = False
        self._second = 0.0
        self._left = CHILD_LOG_LINES_PER_S
        self._dropped = 0
        self.last = ""
        """The last line that said something, for the story of a death."""

    def feed(self, data: bytes) -> None:
        """A chunk; b"" is the end."""
        if not data:
            self._finish_line()
            self._tell_dropped()
            return
        if not self._left and self._clock() < self._second + 1:
            self._drop(data)
            return
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._finish_line()
        self._add(rest)

    def _drop(self, data: bytes) -> None:
        """Count the lines of a chunk without looking at each: a flood is not worth the time."""
        whole, end, rest = data.rpartition(b"\n")
        if end:
            self._dropped += data.count(b"\n")
            self._line.clear()
            self._cut = False
            last = whole.rpartition(b"\n")[2][:CHILD_LOG_LINE_BYTES].decode(errors="replace").strip()
            self.last = last or self.last
        self._add(rest)

    def _add(self, part: bytes) -> None:
        room = CHILD_LOG_LINE_BYTES - len(self._line)
        self._cut = self._cut or len(part) > room
        if room > 0:
            self._line += part[:room]

    def _finish_line(self) -> None:
        if not self._line:
            return
        text = self._line.decode(errors="replace").rstrip("\r") + ("…" if self._cut else "")
        self._line.clear()
        self._cut = False
        if text.strip():
            self.last = text
            self.pass_on(text)

    def pass_on(self, text: str, level: int = logging.INFO) -> None:
        """Log a line, or count it if there were too many in this second."""
        now = self._clock()
        if now >= self._second + 1:
            self._tell_dropped()
            self._second, self._left = now, CHILD_LOG_LINES_PER_S
        if self._left > 0:
            self._left -= 1
            self._emit(text, level)
        else:
            self._dropped += 1

    def _tell_dropped(self) -> None:
        if self._dropped:
            told = f"… {self._dropped} lines were not logged: more than {CHILD_LOG_LINES_PER_S} in a second"
            self._emit(told, logging.WARNING)
            self._dropped = 0
