"""What handlers log: each line gets the fields of its job, and from INFO on it is kept for the job.

A context variable says which run the code at hand belongs to; tasks and threads that copy the context belong to it
too. One logging handler for the process stands first at the root logger, and at `forge_jobs` where that does not
propagate. A run that does not log costs a write to the variable; lines wait in a ring per run and are written in
batches by a loop, best effort.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from forge_jobs import limits, tracing
from forge_jobs.storage.types.finalize import Lost, Settled
from forge_jobs.storage.types.log import NewLine, RunLog
from forge_jobs.text import clean

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.running import Run

KEPT_FROM: Final = logging.INFO
NAME_BYTES: Final = 128
current_run: Final[ContextVar[Run | None]] = ContextVar("forge_jobs_run", default=None)
"""The run that the code at hand belongs to; one that is over may still have code running."""
_KEPT: Final = "_forge_kept"
_lock = threading.Lock()
"""Guards every ring: lines come from any thread."""


class Lines:
    """The newest lines of one run that are not written yet."""

    __slots__ = ("_lines", "_number", "_skipped", "closed", "ended", "size")

    def __init__(self) -> None:
        self._lines: deque[NewLine] = deque()
        self._number = 0
        self._skipped = 0
        self.size = 0
        self.ended = False
        """The store has the run's outcome."""
        self.closed = False
        """Nothing more is taken."""

    def add(self, at_us: int, level: str, logger: str, message: str, *, room: int) -> int:
        """One more line; the oldest go if there are too many, or more than `room` bytes. How many went."""
        size = len(message.encode())
        room = min(room + self.size, limits.LOG_BYTES)
        self._number += 1
        went = self._drop_until(limits.LOG_LINES - 1, room - size)
        if size <= room:
            self._lines.append(NewLine(at_us, self._number, level, logger, message, size))
            self.size += size
            return went
        self._skipped += 1
        return went + 1

    def take(self) -> list[NewLine]:
        """What waits. The first line says how many were dropped before it."""
        taken = list(self._lines)
        if taken and self._skipped:
            first = taken[0]
            taken[0] = NewLine(
                first.at_us, first.number, first.level, first.logger, first.message, first.size, self._skipped
            )
            self._skipped = 0
        self._lines.clear()
        self.size = 0
        return taken

    def put_back(self, lines: list[NewLine]) -> None:
        """Lines that could not be written; they were taken before those that wait."""
        self._lines.extendleft(reversed(lines))
        self.size += sum(line.size for line in lines)
        self._drop_until(limits.LOG_LINES, limits.LOG_BYTES)

    def _drop_until(self, lines: int, size: int) -> int:
        went = 0
        while self._lines and (len(self._lines) > lines or self.size > size):
            gone = self._lines.popleft()
            self.size -= gone.size
            self._skipped += 1 + gone.skipped
            went += 1
        return went


class JobLogs:
    """The lines of this process's runs on their way to the store."""

    def __init__(self, env: RuntimeEnv) -> None:
        self._env = env
        self._runs: dict[tuple[str, int], tuple[Run, Lines]] = {}
        self._size = 0
        """About how many bytes wait in all rings."""
        self._dropped = 0
        self._flushing = asyncio.Lock()
        """One at a time: whoever flushes finds written what another took."""

    def keep(self, run: Run, level: str, logger: str, message: str) -> None:
        """One more line of a run, from any thread."""
        message = clean(message, limits.LOG_LINE_BYTES)
        with _lock:
            lines = run.log_lines
            if lines is None:
                lines = run.log_lines = Lines()
                self._runs[run.claimed.job_id, run.claimed.fence] = (run, lines)
            if lines.closed:
                return
            before = lines.size
            at_us = self._env.clock.now_us()
            self._dropped += lines.add(at_us, level, logger, message, room=limits.LOG_BUFFER_BYTES - self._size)
            self._size += lines.size - before

    def settled(self, run: Run, answer: Settled | None) -> None:
        """The store has the run's outcome, or (None) it was dropped: what was logged is true, or must go."""
        lines = run.log_lines
        if lines is None:
            return
        with _lock:
            lines.closed = lines.ended = True
            if answer is None or isinstance(answer, Lost):
                self._forget(run, lines)

    async def flush(self) -> int:
        """Write what waits; how many lines. What cannot be written now waits on, within its bound.

        Raises:
            StorageError: the store did not take it.
        """
        async with self._flushing:
            return await self._flush()

    async def _flush(self) -> int:
        due = self._take()
        if not due:
            return 0
        batches = [batch for _, _, batch in due]
        held: set[Any] = {batch.job_id for batch in batches}
        try:
            held = set(await self._env.storage.logs.append(batches))
        finally:
            self._return(due, held)
        return sum(len(batch.lines) for batch in batches if batch.job_id not in held)

    def _take(self) -> list[tuple[Run, Lines, RunLog]]:
        due = []
        with _lock:
            dropped, self._dropped = self._dropped, 0
            for run, lines in list(self._runs.values()):
                ended = lines.ended
                taken = lines.take()
                if taken:
                    job = run.job
                    batch = RunLog(job_id=job.id, fence=job.fence, attempt=job.attempts, lines=taken, ended=ended)
                    due.append((run, lines, batch))
                elif ended:
                    self._forget(run, lines)
            self._size = 0
        if dropped:
            self._env.observer.count("log_lines_dropped", n=dropped)
        return due

    def _return(self, due: list[tuple[Run, Lines, RunLog]], held: set[Any]) -> None:
        with _lock:
            for run, lines, batch in due:
                if batch.job_id in held:
                    lines.put_back(list(batch.lines))
                elif batch.ended:
                    self._forget(run, lines)
            self._size = sum(lines.size for _, lines in self._runs.values())

    def _forget(self, run: Run, lines: Lines) -> None:
        lines.closed = True
        self._runs.pop((run.claimed.job_id, run.claimed.fence), None)


class _Capture(logging.Handler):
    """Gives lines that are logged under a handler the fields of their job, and keeps them."""

    def emit(self, record: logging.LogRecord) -> None:
        run = current_run.get()
        if run is not None and not hasattr(record, _KEPT):
            try:
                add_fields(record, run)
                if record.levelno >= KEPT_FROM:
                    keep(record, run)
            except Exception:
                self.handleError(record)
        if _nobody_else(record) and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)  # which Python does only where there is no handler at all


def add_fields(record: logging.LogRecord, run: Run) -> None:
    """The fields of the job, and of the trace if there is one, for whoever formats the record."""
    job = run.job
    fields: dict[str, Any] = {
        "job_id": job.id,
        "kind": job.kind,
        "queue": job.queue,
        "attempt": job.attempts,
        "fence": job.fence,
        **tracing.current_ids(),
        _KEPT: True,
    }
    for name, value in fields.items():
        if not hasattr(record, name):
            setattr(record, name, value)


def keep(record: logging.LogRecord, run: Run) -> None:
    """Keep the line for the job."""
    message = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        message = f"{message}\n{_FORMATTER.formatException(record.exc_info)}"
    run.env.job_logs.keep(run, record.levelname, clean(record.name, NAME_BYTES), message)


def keep_unseen(logger: str, level: int, msg: object, args: Any, exc_info: Any, run: Run) -> None:
    """Keep a line that no logger takes, as nobody configured logging."""
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif exc_info and not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    record = logging.LogRecord(logger, level, "", 0, msg, args, exc_info or None)
    try:
        keep(record, run)
    except Exception:
        _CAPTURE.handleError(record)


def install() -> None:
    """Begin to look at what is logged; again for each runtime."""
    global _users
    with _lock:
        _users += 1
    look_again()


def uninstall() -> None:
    """One runtime less."""
    global _users
    with _lock:
        _users -= 1
        if _users:
            return
    for logger in (logging.getLogger(), logging.getLogger("forge_jobs")):
        logger.removeHandler(_CAPTURE)


def look_again() -> None:
    """Stand where lines come by, though somebody configured logging anew meanwhile."""
    if _users:
        root, ours = logging.getLogger(), logging.getLogger("forge_jobs")
        for logger in (root,) if ours.propagate else (root, ours):
            if logger.handlers[:1] != [_CAPTURE]:  # first: others format the record after it has its fields
                logger.removeHandler(_CAPTURE)
                logger.handlers.insert(0, _CAPTURE)


def _nobody_else(record: logging.LogRecord) -> bool:
    """Whether no handler but ours sees the record."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(handler is not _CAPTURE for handler in logger.handlers):
            return False
        logger = logger.parent if logger.propagate else None
    return True


_CAPTURE: Final = _Capture()
_FORMATTER: Final = logging.Formatter()
_users = 0
