"""The names of everything at `/metrics`, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from forge_jobs.observe import COUNTS, HISTOGRAMS, Observer

PREFIX: Final = "forge_jobs_"
Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A family of numbers that go up and down. `of`: the `store`, or this `process`."""

    name: str
    labels: Labels
    of: str
    meaning: str


_QUEUE: Final = ("queue",)
_WORKER: Final = ("host_id", "worker")
_ALL: Final = (
    Gauge("pending", _QUEUE, "store", "Jobs that are due and wait."),
    Gauge("scheduled", _QUEUE, "store", "Jobs that are due later."),
    Gauge("in_progress", _QUEUE, "store", "Jobs that run."),
    Gauge("failed", _QUEUE, "store", "Jobs that wait for their next retry."),
    Gauge("dead", _QUEUE, "store", "Jobs that ended without success, as far as they are kept."),
    Gauge("done", _QUEUE, "store", "Jobs that are done, as far as they are kept."),
    Gauge("oldest_ready_age_seconds", _QUEUE, "store", "How long the oldest job has been due; 0 if none is."),
    Gauge("max_workers", _QUEUE, "store", "The total of workers; absent without one."),
    Gauge("slots_open", _QUEUE, "store", "Slots of live workers."),
    Gauge("slots_busy", _QUEUE, "store", "Those of them with a job."),
    Gauge("paused", _QUEUE, "store", "1 if the queue is paused."),
    Gauge("throttled", _QUEUE, "store", "1 while the queue cools down."),
    Gauge("unserved", _QUEUE, "store", "1 if jobs wait, or a total is set, and no live worker has a slot."),
    Gauge("unserved_kind", ("queue", "kind"), "store", "1 for a kind that waits and that no live worker takes."),
    Gauge("rate_tokens", ("scope",), "store", "Tokens in the bucket; of scopes with keys only the pattern."),
    Gauge("worker_info", (*_WORKER, "host_name", "version"), "store", "1 for each live worker process."),
    Gauge("worker_fenced", _WORKER, "store", "1 if the worker was cut off from the store."),
    Gauge("abandoned_threads", _WORKER, "store", "Threads of handlers that would not end."),
    Gauge("loop_last_success_age_seconds", ("host_id", "loop"), "store", "Since a background loop last succeeded."),
    Gauge("leader", ("loop", "host_id"), "store", "1 for the process that runs a loop for the cluster."),
    Gauge("wal_bytes", (), "store", "SQLite: the write-ahead log."),
    Gauge("db_size_bytes", (), "store", "SQLite: the file. PostgreSQL: the table of jobs with its indexes."),
    Gauge("dead_tuples", (), "store", "PostgreSQL: rows of the table of jobs that a VACUUM would clear."),
    Gauge(
        "db_connections", ("state",), "store", "PostgreSQL: connections, `ours`, `active`, `all` and the most, `max`."
    ),
    Gauge("clock_offset_seconds", (), "store", "PostgreSQL: how far the server's clock is ahead of this host's."),
    Gauge("store_up", (), "process", "1 if the store answered when it was last asked."),
    Gauge("listener_up", (), "process", "1 if wakes of other processes arrive here; else jobs are found by polling."),
)
GAUGES: Final[Mapping[str, Gauge]] = {gauge.name: gauge for gauge in _ALL}

Samples: TypeAlias = Mapping[str, Sequence[tuple[Labels, float]]]
"""By name of the gauge: values of its labels, and the number."""


def names() -> set[str]:
    """Every name that a query may use."""
    histograms = {f"{PREFIX}{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
    return {f"{PREFIX}{name}_total" for name in COUNTS} | histograms | {f"{PREFIX}{name}" for name in GAUGES}


def text(gauges: Samples, observer: Observer) -> bytes:
    """All families in Prometheus' text format, HELP and TYPE of each also where it has no sample."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(gauges, observer))  # type: ignore[arg-type]
    return generate_latest(registry)


class _Collector:
    """What `prometheus_client` asks for families."""

    def __init__(self, gauges: Samples, observer: Observer) -> None:
        self._gauges = gauges
        self._observer = observer

    def collect(self) -> Iterable[object]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for gauge in GAUGES.values():
            family = GaugeMetricFamily(PREFIX + gauge.name, gauge.meaning, labels=gauge.labels)
            for labels, value in self._gauges.get(gauge.name, ()):
                family.add_metric(labels, value)
            yield family
        for counted in COUNTS.values():
            counter = CounterMetricFamily(PREFIX + counted.name, counted.meaning, labels=counted.labels)
            for labels, count in self._observer.counts(counted.name).items():
                counter.add_metric(labels, count)
            yield counter
        for measured in HISTOGRAMS.values():
            histogram = HistogramMetricFamily(PREFIX + measured.name, measured.meaning, labels=measured.labels)
            for labels, one in self._observer.histograms(measured.name).items():
                histogram.add_metric(labels, list(_buckets(one.bounds, one.counts)), one.sum)
            yield histogram


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> Iterable[tuple[str, int]]:
    """Upper bounds with how many values are at or below each."""
    total = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        yield bound, total
