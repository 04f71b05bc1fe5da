"""`/overview`, `/timeline` and `/series`: the whole at a glance, and over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Query

from forge_jobs import limits
from forge_jobs.api.answer import Json
from forge_jobs.api.call import Call, Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Page
from forge_jobs.api.model.job import JobEvent
from forge_jobs.api.model.overview import Overview, ResourcesQuery, Series, SeriesQuery, StoreSeriesQuery, TimelineQuery
from forge_jobs.api.problem import invalid
from forge_jobs.api.route.queues import describe_queues
from forge_jobs.storage.types.metric import METRICS, Bucket
from forge_jobs.view.job import event

router = api_router()

RATES_OVER: Final = timedelta(minutes=5)
"""Rates are of the last closed minutes in this span."""
HOUR: Final = timedelta(hours=1)
_STATUSES: Final = ("pending", "ready", "scheduled", "in_progress", "failed", "done", "dead")


@endpoint(router, "GET", "/overview", role=Role.READ, answer=Overview, tag="overview")
async def overview(call: Caller) -> Json:
    """Totals, rates, ages, what is wrong, and every queue."""
    queues = await describe_queues(call)
    processes = await call.processes()
    now = call.now
    oldest = min((q["counts"]["oldest_ready_at"] for q in queues if q["counts"]["oldest_ready_at"]), default=None)
    return Json(
        {
            "at": now,
            "counts": {
                **{status: sum(q["counts"][status] for q in queues) for status in _STATUSES},
                "oldest_ready_at": oldest,
            },
            "rates": await _rates(call, now),
            "oldest_ready_age_s": None if oldest is None else max((now - oldest).total_seconds(), 0.0),
            "workers_live": sum(row.live for row in processes),
            "slots_open": sum(q["slots_open"] for q in queues),
            "slots_busy": sum(q["slots_busy"] for q in queues),
            "banners": await call.services.banners.look(queues, processes),
            "queues": queues,
        }
    )


@endpoint(router, "GET", "/timeline", role=Role.READ, answer=Page[JobEvent], tag="overview")
async def timeline(call: Caller, asked: Annotated[TimelineQuery, Query()]) -> Json:
    """Events of all jobs, oldest first, at most `limit` of them. They are written every two seconds."""
    to = asked.to or call.now
    since = asked.from_ or to - RATES_OVER
    events = await call.storage.events.timeline(since, to, limit=asked.limit)
    items = [
        event(one)
        for one in events
        if call.identity.may_see(one.queue) and (asked.queue is None or one.queue == asked.queue)
    ]
    total = len(items) if len(events) < asked.limit else None
    return Json({"items": items, "next_cursor": None, "total": total, "total_at_least": len(items)})


@endpoint(router, "GET", "/series/queue", role=Role.READ, answer=Series, tag="overview")
async def queue_series(call: Caller, asked: Annotated[SeriesQuery, Query()]) -> Json:
    """What queues did: jobs added, started, done, dead, retried; how long they waited, ran and took."""
    if asked.queue is not None:
        call.see_queue(asked.queue)
    names = [name for name, metric in METRICS.items() if metric.of == "jobs"]
    if asked.queue is None and call.identity.queues is not None:
        raise invalid("this token is limited to queues: name one of them", field="queue", reason="missing_field")
    return await _series(call, asked, names, queue=asked.queue)


@endpoint(router, "GET", "/series/resources", role=Role.READ, answer=Series, tag="overview")
async def resource_series(call: Caller, asked: Annotated[ResourcesQuery, Query()]) -> Json:
    """What worker processes used of their machines, each process by itself."""
    names = [name for name, metric in METRICS.items() if metric.of == "process"]
    hosts = [asked.host_id] if asked.host_id else [row.info.host_id for row in await call.processes()]
    return await _series(call, asked, names, hosts=hosts)


@endpoint(router, "GET", "/series/store", role=Role.READ, answer=Series, tag="overview")
async def store_series(call: Caller, asked: Annotated[StoreSeriesQuery, Query()]) -> Json:
    """How the store fared: sizes, connections, free disk."""
    names = [name for name, metric in METRICS.items() if metric.of == "store"]
    return await _series(call, asked, names)


async def _series(
    call: Call,
    asked: SeriesQuery | ResourcesQuery | StoreSeriesQuery,
    names: Sequence[str],
    *,
    queue: str | None = None,
    hosts: Sequence[str] | None = None,
) -> Json:
    to = asked.to or call.now
    since = asked.from_ or to - HOUR
    width = timedelta(seconds=asked.bucket_s)
    if asked.bucket_s % 60:
        raise invalid(f"bucket_s {asked.bucket_s} is not whole minutes", field="bucket_s", reason="out_of_range")
    if to - since > limits.SERIES_BUCKETS * width:
        raise invalid(
            f"from … to is more than {limits.SERIES_BUCKETS} buckets of {asked.bucket_s} s; ask for larger ones",
            field="bucket_s",
            reason="out_of_range",
        )
    lines = []
    for host in hosts if hosts is not None else [None]:
        for name in names:
            found = await call.storage.metrics.series(name, since, to, bucket=width, queue=queue, host_id=host)
            if found or hosts is None:
                unit = METRICS[name].unit
                lines.append({"metric": name, "unit": unit, "host_id": host, "points": [_point(one) for one in found]})
    return Json({"from": since, "to": to, "bucket_s": asked.bucket_s, "lines": lines})


async def _rates(call: Call, now: datetime) -> dict[str, float]:
    until = now.replace(second=0, microsecond=0)
    since = until - RATES_OVER
    rates = {}
    for metric in ("enqueued", "completed", "retried", "failed"):
        total = 0
        for queue in call.identity.queues or (None,):
            buckets = await call.storage.metrics.series(metric, since, until, queue=queue)
            total += sum(bucket.value.count for bucket in buckets)
        rates[f"{metric}_per_s"] = round(total / RATES_OVER.total_seconds(), 4)
    return rates


def _point(bucket: Bucket) -> dict[str, Any]:
    return {"at": bucket.at, "mean": bucket.value.mean, **dataclasses.asdict(bucket.value)}
