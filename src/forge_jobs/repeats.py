"""A warning that repeats is logged once a minute, with how often it was left out.

A store that is away for an hour is worth a line a minute, not a line for each of its tries. The same warning is one of
the same event about the same thing: another queue, loop or schedule has a line of its own. What changes from one to the
next, such as the text of the error, makes it no other.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final

EVERY_S: Final = 60.0
SUBJECTS: Final = 1_000
"""So many warnings are remembered, the latest ones."""
LIMITED: Final = (
    "api", "context", "cleanup", "cron", "events", "exchange", "heartbeat", "integrations", "lag", "loops", "observe",
    "postgres", "probe", "prometheus", "reaper", "runtime", "sqlite", "supervisor", "sync", "tracing", "wake", "worker",
)  # fmt: skip
"""The loggers below `forge_jobs` whose warnings may repeat without an end. Others say each thing once, or once a
minute by themselves."""
EACH_COUNTS: Final = frozenset(
    {
        "abandoned", "api_fault", "claims_stopped", "fenced", "job_dead", "lost_ownership", "operation_failed",
        "operation_fault", "reaped", "slot_fault", "stray_released", "task_fault", "unfenced",
    }
)  # fmt: skip
"""Events that are of another job, or another turn of events, each time."""
_SUBJECT: Final = ("queue", "kind", "loop", "schedule", "status", "label", "class", "hook", "task", "path")
_BY_JOB: Final = frozenset({"outcome_unreadable", "revive_failed"})
_SPEC: Final = re.compile(r"(?:(\w+)=)?%(?:%|[-#0 +]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa])")
_EVENT: Final = re.compile(r"[a-z0-9_]+")


class Repeats(logging.Filter):
    """Lets a warning pass that did not pass in the last minute. For loggers; safe from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._lock = threading.Lock()
        self._passed: dict[tuple[Any, ...], tuple[float, int]] = {}
        """When a warning passed last, and how many of it were held since."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not logging.WARNING <= record.levelno < logging.CRITICAL:
            return True
        event, fields = _read(record)
        if event in EACH_COUNTS:
            return True
        names = (*_SUBJECT, "job_id") if event in _BY_JOB else _SUBJECT
        held = self._held((record.name, event, *(str(fields.get(name)) for name in names)))
        if held:
            _add(record, held)
        return held is not None

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._passed.clear()

    def _held(self, subject: tuple[Any, ...]) -> int | None:
        """How many were held before this one, which passes; None if it does not."""
        with self._lock:
            now = self._now()
            at, held = self._passed.pop(subject, (None, 0))
            if at is not None and now - at < EVERY_S:
                self._passed[subject] = (at, held + 1)
                return None
            self._passed[subject] = (now, 0)
            while len(self._passed) > SUBJECTS:
                del self._passed[next(iter(self._passed))]
            return held


def _read(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """The event and the fields of a line `event key=%s …`."""
    event, fields = getattr(record, "event", None), getattr(record, "fields", None)
    if isinstance(event, str) and isinstance(fields, dict):
        return event, fields
    template = str(record.msg)
    found = _EVENT.match(template)
    arguments = list(record.args) if isinstance(record.args, tuple) else []
    named: dict[str, Any] = {}
    for spec in _SPEC.finditer(template):
        if not spec[0].endswith("%%") and arguments:
            value = arguments.pop(0)
            if spec[1] is not None:
                named[spec[1]] = value
    return found[0] if found else template, named


def _add(record: logging.LogRecord, held: int) -> None:
    """Say how many were left out."""
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict):
        fields["left_out"] = held
    if isinstance(record.args, tuple):
        record.msg, record.args = f"{record.msg} left_out=%d", (*record.args, held)


REPEATS: Final = Repeats()
for _name in LIMITED:
    logging.getLogger(f"forge_jobs.{_name}").addFilter(REPEATS)
