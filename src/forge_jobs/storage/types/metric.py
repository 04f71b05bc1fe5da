"""Metrics by minute: their names, what one minute of one holds, and what charts read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured. `of`: `jobs` (by queue and kind), `process` (by host id) or `store`."""

    name: str
    of: str
    unit: str
    meaning: str


_ALL: Final = (
    Metric("enqueued", "jobs", "jobs", "Jobs added."),
    Metric("started", "jobs", "runs", "Runs begun."),
    Metric("completed", "jobs", "jobs", "Jobs done."),
    Metric("failed", "jobs", "jobs", "Jobs that ended dead."),
    Metric("retried", "jobs", "runs", "Runs that ended with the job to run again, for whatever cause."),
    Metric("throttled", "jobs", "runs", "Those of them that were throttled."),
    Metric("released", "jobs", "runs", "Runs given back unfinished, without losing an attempt."),
    Metric("crashed", "jobs", "runs", "Runs that ended with their process, or lost it."),
    Metric("wait_ms", "jobs", "ms", "From when a job could run until it started, for each run."),
    Metric("proc_ms", "jobs", "ms", "The run that completed a job."),
    Metric("total_ms", "jobs", "ms", "From enqueue to completion."),
    Metric("cpu_pct", "process", "%", "CPU time of the process, of all cores of the host."),
    Metric("rss_bytes", "process", "bytes", "Memory that the process holds."),
    Metric("disk_read_bytes", "process", "bytes", "Read from disks in the minute."),
    Metric("disk_write_bytes", "process", "bytes", "Written to disks in the minute."),
    Metric("disk_used_pct", "process", "%", "How full the volume of the working directory is."),
    Metric("open_fds", "process", "files", "Open file descriptors."),
    Metric("threads", "process", "threads", "Threads of the process."),
    Metric("loop_lag_ms", "process", "ms", "How late the event loop was."),
    Metric(
        "db_read_ms", "process", "ms", "Reads of the store, all of them, waiting included; `count` is their number."
    ),
    Metric("db_write_ms", "process", "ms", "The same of transactions that write."),
    Metric(
        "db_size_bytes", "store", "bytes", "SQLite: the database file. PostgreSQL: the table of jobs with its indexes."
    ),
    Metric("wal_bytes", "store", "bytes", "SQLite: the write-ahead log."),
    Metric("checkpoint_age_s", "store", "s", "SQLite: since the recording worker last copied the log back."),
    Metric("free_disk_pct", "store", "%", "SQLite: what is free of the volume of the database."),
    Metric("server_connections", "store", "connections", "PostgreSQL: connections of all clients of the server."),
    Metric("our_connections", "store", "connections", "PostgreSQL: those of forge-jobs."),
    Metric("active_connections", "store", "connections", "PostgreSQL: those with a statement under way."),
    Metric("connections_used_pct", "store", "%", "PostgreSQL: connections of clients, of the most there may be."),
    Metric("dead_tuples", "store", "rows", "PostgreSQL: rows of the table of jobs that a VACUUM would clear."),
    Metric("oldest_transaction_s", "store", "s", "PostgreSQL: age of the oldest transaction of this database."),
    Metric("notify_queue_pct", "store", "%", "PostgreSQL: how full the server's queue of notifications is."),
)
METRICS: Final = {metric.name: metric for metric in _ALL}
COUNTERS: Final = ("enqueued", "started", "completed", "failed", "retried", "throttled", "released", "crashed")
"""Of these only the count says something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What `count` values came to; of a counter only the count. Percentiles are by nearest rank."""

    count: int
    sum: float | None = None
    min: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None

    @property
    def mean(self) -> float | None:
        return None if self.sum is None else self.sum / self.count

    @classmethod
    def of(cls, value: float) -> Summary:
        """A value by itself."""
        return cls(count=1, sum=value, min=value, p50=value, p95=value, p99=value, max=value)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of a series. Merged: counts and sums add up, `p50` is the mean of the parts weighted by count and
    rounded, `p95` and `p99` are those of the worst part."""

    at: datetime
    value: Summary


class Tally:
    """All values that were added, each as its first two digits: few of them, however many were added, and a
    percentile is off by 5 % at most."""

    def __init__(self) -> None:
        self._values: Counter[float] = Counter()
        self._sum = 0.0
        self._min = float("inf")
        self._max = 0.0

    def add(self, value: float) -> None:
        self._values[float(f"{value:.1e}")] += 1
        self._sum += value
        self._min = min(self._min, value)
        self._max = max(self._max, value)

    def take(self) -> Summary | None:
        """What was added since the last call; None if nothing was."""
        values, total, low, high = self._values, self._sum, self._min, self._max
        Tally.__init__(self)
        if not values:
            return None
        p50, p95, p99 = (min(max(percentile(values, p), low), high) for p in (50, 95, 99))
        return Summary(count=values.total(), sum=total, min=low, p50=p50, p95=p95, p99=p99, max=high)


@dataclass(frozen=True, slots=True)
class Timings:
    """How many milliseconds the calls on a store took since they were last taken, waiting included; no heartbeats."""

    reads: Tally = field(default_factory=Tally)
    writes: Tally = field(default_factory=Tally)


def percentile(values: Counter[float], p: int) -> float:
    """The value of nearest rank, ceil(p * n / 100), of values with how often each occurs; 0 of none."""
    rank = max(-(-p * values.total() // 100), 1)
    for value, times in sorted(values.items()):
        rank -= times
        if rank <= 0:
            return value
    return 0
