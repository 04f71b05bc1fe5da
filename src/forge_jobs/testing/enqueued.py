"""Looking at what was enqueued: assertions whose failure shows the jobs that come nearest.

    await assert_enqueued(storage, "mail", payload={"to": "a@example.org"}, scheduled_at="1h")

Every job in the store is looked at, whatever became of it since, so it makes no difference whether it has run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from forge_jobs.clock import duration_us, from_us
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import JobFilter, JobRow

PAGE: Final = 1_000
NEAREST: Final = 5
TOLERANCE: Final = timedelta(seconds=1)
SHOWN: Final = 300

When: TypeAlias = datetime | timedelta | float | str


class _Any:
    """What was not asked about."""

    def __repr__(self) -> str:
        return "…"


ANY: Final[Any] = _Any()


async def all_enqueued(storage: Storage, kind: str | None = None, *, queue: str | None = None) -> list[JobRow]:
    """The jobs of the store, of one kind or queue if named, in the order in which they were enqueued."""
    chosen = JobFilter(kinds=None if kind is None else (kind,), queues=None if queue is None else (queue,))
    found: list[JobRow] = []
    cursor: str | None = None
    while True:
        page = await storage.jobs.list_jobs(chosen, limit=PAGE, cursor=cursor, with_total=False)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found[::-1]


async def assert_enqueued(
    storage: Storage,
    kind: str,
    *,
    payload: Any = ANY,
    queue: str | None = None,
    times: int | None = 1,
    scheduled_at: When | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
) -> list[JobRow]:
    """See that exactly `times` jobs fit, or at least one if `times` is None; those jobs.

    What is not given fits anything. payload: its value, or a function that says whether one fits. scheduled_at: an
    instant, or how far from now (seconds, a timedelta, or text such as `1h`), to the second.

    Raises:
        AssertionError: it is another number; the message shows the nearest jobs, and where they differ.
    """
    wanted = _Wanted(kind, payload, queue, _instant(storage, scheduled_at), priority, dedupe_key)
    jobs = await all_enqueued(storage)
    fitting = [job for job in jobs if not wanted.differences(job)]
    if len(fitting) == times or (times is None and fitting):
        return fitting
    number = "at least 1 job" if times is None else f"{times} job{'' if times == 1 else 's'}"
    raise AssertionError(f"expected {number} {wanted}, found {len(fitting)}\n{_nearest(wanted, jobs)}")


async def refute_enqueued(
    storage: Storage,
    kind: str,
    *,
    payload: Any = ANY,
    queue: str | None = None,
    scheduled_at: When | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
) -> None:
    """See that no job fits.

    Raises:
        AssertionError: one does; the message shows it.
    """
    await assert_enqueued(
        storage,
        kind,
        payload=payload,
        queue=queue,
        times=0,
        scheduled_at=scheduled_at,
        priority=priority,
        dedupe_key=dedupe_key,
    )


class _Wanted:
    """What a job must be like."""

    def __init__(
        self,
        kind: str,
        payload: Any,
        queue: str | None,
        scheduled_at: datetime | None,
        priority: int | None,
        dedupe_key: str | None,
    ) -> None:
        self._payload = payload
        self._fields: dict[str, Any] = {"kind": kind}
        for name, value in (
            ("queue", queue),
            ("scheduled_at", scheduled_at),
            ("priority", priority),
            ("dedupe_key", dedupe_key),
        ):
            if value is not None:
                self._fields[name] = value

    def __str__(self) -> str:
        parts = [f"{name}={_shown(value)}" for name, value in self._fields.items()]
        if self._payload is not ANY:
            parts.append(f"payload={_shown(self._payload)}")
        return "with " + ", ".join(parts)

    def differences(self, job: JobRow) -> list[str]:
        """Where the job is another than is wanted; empty if it fits."""
        found = [
            f"{name}: {_shown(getattr(job, name))} instead of {_shown(value)}"
            for name, value in self._fields.items()
            if not _alike(getattr(job, name), value)
        ]
        if callable(self._payload):
            if job.kind == self._fields["kind"] and not self._payload(job.payload):
                found.append(f"payload: {_shown(job.payload)} does not satisfy {_shown(self._payload)}")
        elif self._payload is not ANY:
            found += _unlike(job.payload, self._payload, "payload")
        return found


def _alike(actual: Any, wanted: Any) -> bool:
    if isinstance(actual, datetime) and isinstance(wanted, datetime):
        return abs(actual - wanted) <= TOLERANCE
    return bool(actual == wanted)


def _unlike(actual: Any, wanted: Any, path: str) -> list[str]:
    """Where two JSON values differ, by path."""
    if isinstance(actual, dict) and isinstance(wanted, dict):
        found: list[str] = []
        for key in [*wanted, *(key for key in actual if key not in wanted)]:
            at = f"{path}.{key}"
            if key not in actual:
                found.append(f"{at}: missing, instead of {_shown(wanted[key])}")
            elif key not in wanted:
                found.append(f"{at}: {_shown(actual[key])}, which is not wanted")
            else:
                found += _unlike(actual[key], wanted[key], at)
        return found
    if isinstance(actual, list) and isinstance(wanted, list) and len(actual) == len(wanted):
        pairs = enumerate(zip(actual, wanted, strict=True))
        return [line for index, (one, other) in pairs for line in _unlike(one, other, f"{path}[{index}]")]
    same = actual == wanted and isinstance(actual, bool) == isinstance(wanted, bool)
    return [] if same else [f"{path}: {_shown(actual)} instead of {_shown(wanted)}"]


def _nearest(wanted: _Wanted, jobs: list[JobRow]) -> str:
    """The jobs that differ least, each with its differences."""
    if not jobs:
        return "the store holds no job"
    found = [(wanted.differences(job), job) for job in jobs]
    ranked = sorted(found, key=lambda one: (_is_other_kind(one[0]), len(one[0])))
    lines = [f"the nearest of {len(jobs)}:"]
    for differences, job in ranked[:NEAREST]:
        lines.append(f"  {job.id} {job.kind} on {job.queue}, {job.status}: {'; '.join(differences) or 'fits'}")
    return "\n".join(lines)


def _is_other_kind(differences: list[str]) -> bool:
    return any(line.startswith("kind:") for line in differences)


def _instant(storage: Storage, when: When | None) -> datetime | None:
    if when is None or isinstance(when, datetime):
        return when
    return from_us(storage.clock.now_us() + duration_us(when))


def _shown(value: Any) -> str:
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return getattr(value, "__name__", "a function")
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
