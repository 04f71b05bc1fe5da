"""What happens in this process, for whoever wants to know: counts, histograms and hooks, without any exporter.

`storage.observer` is the one of a store and of the workers on it. Counts and histograms are plain numbers by labels,
for an exporter to read; they tell of this process's own doings and are never read from the store. A hook is called
with every event of the names it asked for:

    storage.observer.hook(lambda event: print(event.name, dict(event.fields)), "job_dead", "fenced")

Everything here belongs to the event loop's thread: no locks, and a hook that blocks, blocks the loop. Reading copies
from another thread is safe.

`tell` writes log lines with a stable event name. No payload is ever among the fields, of lines or of events.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from forge_jobs import repeats as repeats  # every logger that tells is limited
from forge_jobs.text import printable

log = logging.getLogger("forge_jobs.observe")

KINDS: Final = 500
"""More kinds than this are counted together, as `other`; so are label sets of a family beyond `LABEL_SETS`."""
LABEL_SETS: Final = 2_000
OTHER: Final = "other"
Labels: TypeAlias = tuple[str, ...]


def tell(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
    """Log one event. Fields that are None are left out; text is shown with control characters escaped."""
    if logger.isEnabledFor(level):
        given = {key: value for key, value in fields.items() if value is not None}
        text = "".join(f" {key}={_shown(value)}" for key, value in given.items())
        logger.log(level, "%s%s", event, text, extra={"event": event, "fields": given})


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = printable(str(value))
    return f'"{text}"' if " " in text else text


@dataclass(frozen=True, slots=True)
class Counted:
    """A family of counts: how often something happened since the process began, by labels."""

    name: str
    labels: Labels
    meaning: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A family of histograms. `bounds` are the upper ends of its buckets, in its unit; a last bucket takes the rest."""

    name: str
    labels: Labels
    bounds: tuple[float, ...]
    meaning: str


_JOB: Final = ("queue", "kind")
JOB_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
                900.0, 3600.0)  # fmt: skip
STORE_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)

COUNTS: Final[Mapping[str, Counted]] = {
    family.name: family
    for family in (
        Counted("enqueued", _JOB, "Jobs that this process added."),
        Counted("deduped", _JOB, "Enqueues that found their dedupe key held."),
        Counted("started", _JOB, "Runs that began here."),
        Counted("completed", _JOB, "Runs that ended with their job done."),
        Counted("failed_attempts", (*_JOB, "error"), "Runs that failed: `failed`, or the reason why the job is dead."),
        Counted("dead", (*_JOB, "reason"), "Jobs that ended without success."),
        Counted("throttled", _JOB, "Runs whose upstream asked to come back later."),
        Counted("released", _JOB, "Runs given back unfinished, without losing an attempt."),
        Counted("crashed", _JOB, "Runs that ended with their process."),
        Counted("timeouts", _JOB, "Runs that took longer than their handler's timeout."),
        Counted("lost", _JOB, "Runs that were no longer the owner of their job."),
        Counted("reaped", ("queue",), "Jobs that this process took back from silent workers."),
        Counted("fenced", (), "Times that this process stopped itself as its heartbeats were refused."),
        Counted("claims", ("result",), "Claims by what they gave: `jobs` or `none`."),
        Counted("store_errors", ("op", "class"), "Operations on the store that failed, by class of error."),
        Counted("events_dropped", (), "Events lost because the buffer was full."),
        Counted("log_lines_dropped", (), "Lines of jobs' logs that were not kept."),
        Counted("cron_fired", ("schedule",), "Ticks that made a job."),
        Counted("cron_skipped", ("schedule", "reason"), "Ticks that made none."),
        Counted("cron_errors", ("schedule",), "Ticks that met an error and stay due."),
        Counted("rate_granted", ("scope",), "Tokens asked for and got."),
        Counted("rate_refused", ("scope",), "Times that tokens were refused."),
        Counted("loop_errors", ("loop",), "Failed rounds of background loops."),
        Counted("abandoned", _JOB, "Runs left behind because their handler would not end."),
    )
}
HISTOGRAMS: Final[Mapping[str, Measured]] = {
    family.name: family
    for family in (
        Measured("wait_seconds", _JOB, JOB_S, "From when a job could run until it was claimed."),
        Measured("run_seconds", _JOB, JOB_S, "From the claim until the outcome was recorded, of runs that completed."),
        Measured("total_seconds", _JOB, JOB_S, "From enqueue to completion."),
        Measured("claim_seconds", (), STORE_S, "Exchanges with the store that claimed."),
        Measured("settle_seconds", (), STORE_S, "Exchanges with the store that recorded outcomes."),
        Measured("enqueue_seconds", (), STORE_S, "From sending a batch of enqueues until it was durable."),
        Measured("batch_size", ("op",), SIZES, "Jobs in one `enqueue`, `claim` or `settle`."),
        Measured("store_op_seconds", ("op",), STORE_S, "Operations on the store, waiting included."),
        Measured("event_loop_lag_seconds", (), STORE_S, "How late the event loop was."),
    )
}


class Histogram:
    """How many values fell into each bucket, and their sum. `counts` has one more bucket than `bounds`: the rest."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: Sequence[float]) -> None:
        """Many at once. Of a large batch the places of the bounds among the values are looked for: they are fewer."""
        counts, bounds = self.counts, self.bounds
        if len(values) <= len(bounds):
            for value in values:
                counts[bisect_left(bounds, value)] += 1
        else:
            ordered, before = sorted(values), 0
            for place, bound in enumerate(bounds):
                within = bisect_right(ordered, bound, before)
                counts[place] += within - before
                before = within
            counts[-1] += len(ordered) - before
        self.sum += sum(values)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def copy(self) -> Histogram:
        twin = Histogram(self.bounds)
        twin.counts, twin.sum = list(self.counts), self.sum
        return twin


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, such as `job_done` or `loop_fault`, with what is known of it."""

    name: str
    fields: Mapping[str, Any]


Hook: TypeAlias = Callable[[Event], object]


@dataclass(slots=True, eq=False)
class _Hooked:
    hook: Hook
    names: frozenset[str]


@dataclass(slots=True, eq=False)
class Observer:
    """The counts, histograms and hooks of one store in this process."""

    _counts: dict[str, dict[Labels, int]] = field(default_factory=lambda: {name: {} for name in COUNTS})
    _histograms: dict[str, dict[Labels, Histogram]] = field(default_factory=lambda: {name: {} for name in HISTOGRAMS})
    _hooks: tuple[_Hooked, ...] = ()
    _kinds: set[str] = field(default_factory=set)

    # Reading

    def counts(self, name: str) -> dict[Labels, int]:
        """A copy of a family of counts: by values of its labels, in the order of `COUNTS[name].labels`."""
        return dict(self._counts[name])

    def histograms(self, name: str) -> dict[Labels, Histogram]:
        """A copy of a family of histograms."""
        return {labels: one.copy() for labels, one in list(self._histograms[name].items())}

    # Telling

    def count(self, name: str, *labels: str, n: int = 1) -> None:
        """`n` more of these."""
        family = self._counts[name]
        if labels not in family:
            labels = self._bounded(COUNTS[name].labels, labels, len(family))
        family[labels] = family.get(labels, 0) + n

    def measure(self, name: str, value: float, *labels: str) -> None:
        """One more value."""
        self.histogram(name, *labels).add(value)

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram of these labels, to be added to; for loops over many values."""
        family = self._histograms[name]
        if (found := family.get(labels)) is not None:
            return found
        labels = self._bounded(HISTOGRAMS[name].labels, labels, len(family))
        return family.setdefault(labels, Histogram(HISTOGRAMS[name].bounds))

    def _bounded(self, names: Labels, labels: Labels, size: int) -> Labels:
        """The labels, or `other` in the place of what would be one too many."""
        assert len(names) == len(labels), f"labels {labels} are not {names}"
        if size >= LABEL_SETS:
            return (OTHER,) * len(names)
        if "kind" in names:
            place = names.index("kind")
            if labels[place] not in self._kinds and len(self._kinds) >= KINDS:
                return (*labels[:place], OTHER, *labels[place + 1 :])
            self._kinds.add(labels[place])
        return labels

    # Hooks

    def hook(self, hook: Hook, *names: str) -> Callable[[], None]:
        """Call `hook` with every event of these names, or with every event; returns the way to end that.

        Events of jobs come after the change is committed, in batches, each event once. A hook that raises is logged
        and dropped.
        """
        hooked = _Hooked(hook, frozenset(names))
        self._hooks = (*self._hooks, hooked)
        return lambda: self._drop(hooked)

    def wants(self, name: str) -> bool:
        """Whether anybody wants events of this name, so that it need not be made for nobody."""
        return any(not one.names or name in one.names for one in self._hooks)

    def happened(self, name: str, **fields: Any) -> None:
        """Call the hooks that want this event."""
        if not self._hooks:
            return
        event = Event(name, fields)
        for one in self._hooks:
            if not one.names or name in one.names:
                try:
                    one.hook(event)
                except Exception as error:
                    log.exception("hook_fault hook=%s name=%s error=%s; it is dropped", one.hook, name, error)
                    self._drop(one)

    def _drop(self, hooked: _Hooked) -> None:
        self._hooks = tuple(one for one in self._hooks if one is not hooked)
