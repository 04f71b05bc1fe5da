"""Metrics by minute: rolled up from events, recorded by processes, read as series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from forge_jobs import limits
from forge_jobs.clock import duration_us, from_us, to_us
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Row, Tx
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.types.event import EventType
from forge_jobs.storage.types.metric import COUNTERS, METRICS, Bucket, Summary

NEWEST_ROLLED = statement("newest_rolled")
NEXT_EVENT = statement("next_event")
COUNT_EVENTS = statement("count_events")
EVENT_LATENCIES = statement("event_latencies")
WRITE_METRIC = statement("write_metric")
METRIC_SERIES = statement("metric_series")

MINUTE_US: Final = 60_000_000
LOOK_BACK: Final = 3
"""So many closed minutes are rolled up again each time, for events that were flushed late."""
MINUTES_AT_ONCE: Final = 240
"""What was missed while nobody rolled up is made good in steps of so many minutes."""
WHOLE_FROM_MS: Final = 10
"""A merged median is rounded to whole milliseconds from here on, and to microseconds below."""
_OF_CAUSE: Final = {"throttled": "throttled", "crashed": "crashed", "lost_worker": "crashed"}
_OF_TYPE: Final = {type.value for type in EventType} & set(COUNTERS)

Point: TypeAlias = tuple[str, int, str, str, str, int, "float | None", "float | None", "float | None", "float | None",
                         "float | None", "float | None"]  # fmt: skip
"""A row of `forge_metrics`."""


class SqlMetrics:
    """Implements `MetricStore`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def rollup(self) -> int:
        """One minute after the other: read without a lock, then a short write."""
        since, until = await self._driver.read(_window)
        for minutes in range(MINUTES_AT_ONCE):
            rolled = await self._driver.read(lambda tx, since=since: _roll(tx, since, until))  # type: ignore[misc]
            if rolled is None:
                return minutes
            minute, points = rolled
            await self._write(points)
            since = minute + MINUTE_US
        return MINUTES_AT_ONCE

    async def record(self, values: Mapping[str, Summary], *, host_id: str = "", minute: datetime | None = None) -> None:
        for name in values:
            _known(name)

        def operation(tx: Tx) -> None:
            at = _minute(tx.now_us if minute is None else to_us(minute))
            tx.change_many(WRITE_METRIC, [_point(name, at, host_id, "", "", v) for name, v in values.items()])

        if values:
            await self._driver.write(operation, label="metrics")

    async def series(
        self,
        metric: str,
        since: datetime,
        until: datetime,
        *,
        bucket: timedelta = timedelta(minutes=1),
        queue: str | None = None,
        kind: str | None = None,
        host_id: str | None = None,
    ) -> list[Bucket]:
        _known(metric)
        width = _width(bucket)
        params = {"since": to_us(since), "until": to_us(until)}
        if until <= since:
            return []
        if (params["until"] - params["since"]) > limits.SERIES_BUCKETS * width:
            raise InvalidInput(
                f"{since.isoformat()} to {until.isoformat()} is more than {limits.SERIES_BUCKETS} buckets of {bucket}; "
                "ask for larger ones",
                field="bucket",
            )
        filters = {"metric": metric, "bucket": width, "queue": queue, "kind": kind, "host": host_id}
        return await self._driver.read(lambda tx: [_bucket(row) for row in tx.rows(METRIC_SERIES, params | filters)])

    async def _write(self, points: list[Point]) -> None:
        if points:
            await self._driver.write(lambda tx: tx.change_many(WRITE_METRIC, points), label="metrics")


def _window(tx: Tx) -> tuple[int, int]:
    """From the newest minute that was rolled up, or a little before now if that is later, to the present minute."""
    row = tx.row(NEWEST_ROLLED, {"metrics": to_json(COUNTERS)})
    until = _minute(tx.now_us)
    newest = row[0] if row is not None and row[0] is not None else 0
    return min(newest, until - LOOK_BACK * MINUTE_US), until


def _roll(tx: Tx, since: int, until: int) -> tuple[int, list[Point]] | None:
    """The first minute from `since` on in which something happened, and its points in the order of their key, so that
    two who roll up never wait for each other in a circle."""
    row = tx.row(NEXT_EVENT, {"since": since, "until": until})
    if row is None or row[0] is None:
        return None
    minute = _minute(row[0])
    window = {"since": minute, "until": minute + MINUTE_US}
    points = [*_counted(minute, tx.rows(COUNT_EVENTS, window)), *_latencies(minute, tx.rows(EVENT_LATENCIES, window))]
    return minute, sorted(points, key=lambda point: point[:5])


def _counted(minute: int, rows: Iterable[Row]) -> list[Point]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for queue, kind, type, cause, count in rows:
        for metric in (type if type in _OF_TYPE else None, _OF_CAUSE.get(cause)):
            if metric is not None:
                counts[queue, kind, metric] += count
    return [_point(metric, minute, "", queue, kind, Summary(count=n)) for (queue, kind, metric), n in counts.items()]


def _latencies(minute: int, rows: Iterable[Row]) -> list[Point]:
    return [
        (metric, minute, "", queue, kind, count, *(us / 1000 for us in microseconds))
        for queue, kind, metric, count, *microseconds in rows
    ]


def _point(metric: str, minute: int, host_id: str, queue: str, kind: str, value: Summary) -> Point:
    v = value
    return metric, minute, host_id, queue, kind, v.count, v.sum, v.min, v.p50, v.p95, v.p99, v.max


def _bucket(row: Row) -> Bucket:
    at, count, total, low, p50, p95, p99, high = row
    if p50 is not None:
        p50 = round(p50) if p50 >= WHOLE_FROM_MS else round(p50, 3)
    return Bucket(from_us(at), Summary(count=count, sum=total, min=low, p50=p50, p95=p95, p99=p99, max=high))


def _minute(us: int) -> int:
    return us // MINUTE_US * MINUTE_US


def _known(metric: str) -> None:
    if metric not in METRICS:
        raise InvalidInput(f"there is no metric {metric!r}; there are {', '.join(METRICS)}", field="metric")


def _width(bucket: timedelta) -> int:
    width = duration_us(bucket)
    if width < MINUTE_US or width % MINUTE_US:
        raise InvalidInput(f"a bucket of {bucket} must be whole minutes, at least one", field="bucket")
    return width
