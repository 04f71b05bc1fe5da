"""The whole at a glance, charts, the store and the caller in answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from forge_jobs.api.model.common import Asked, Instant, Shown, WholeText
from forge_jobs.api.model.queue import Queue, QueueCounts


class Banner(Shown):
    """Something that a person must look at. `kind` is a stable word; `id` is one banner's as long as it is there."""

    id: str
    kind: str
    level: Literal["warning", "error"]
    text: str
    queue: str | None = None
    worker: str | None = None


class Rates(Shown):
    """Of the last five minutes, per second. `failed` are jobs that ended dead."""

    enqueued_per_s: float
    completed_per_s: float
    retried_per_s: float
    failed_per_s: float


class Overview(Shown):
    """Totals, rates, ages, what is wrong, and every queue."""

    at: datetime
    counts: QueueCounts
    rates: Rates
    oldest_ready_age_s: float | None
    workers_live: int
    slots_open: int
    slots_busy: int
    banners: list[Banner]
    queues: list[Queue]


class Point(Shown):
    """One bucket. Of a counter only `count` is given."""

    at: datetime
    count: int
    sum: float | None
    mean: float | None
    min: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class Line(Shown):
    """One metric, or one of a process."""

    metric: str
    unit: str
    host_id: str | None
    points: list[Point]


class Series(Shown):
    """Metrics over time. A bucket without values is left out."""

    since: datetime = Field(alias="from")
    to: datetime
    bucket_s: int
    lines: list[Line]


class SeriesQuery(Asked):
    """From when to when, half-open; in buckets of so many seconds, whole minutes."""

    from_: Instant | None = Field(default=None, alias="from", description="One hour before `to` if not given.")
    to: Instant | None = Field(default=None, description="Now if not given.")
    bucket_s: WholeText = Field(default=60, ge=60, le=31 * 86_400)
    queue: str | None = None


class ResourcesQuery(Asked):
    """The same, of one process or of all."""

    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None
    bucket_s: WholeText = Field(default=60, ge=60, le=31 * 86_400)
    host_id: str | None = None


class StoreSeriesQuery(Asked):
    """The same, of the store."""

    from_: Instant | None = Field(default=None, alias="from")
    to: Instant | None = None
    bucket_s: WholeText = Field(default=60, ge=60, le=31 * 86_400)


class TimelineQuery(Asked):
    """Events from when to when, half-open, oldest first."""

    from_: Instant | None = Field(default=None, alias="from", description="Five minutes before `to` if not given.")
    to: Instant | None = Field(default=None, description="Now if not given.")
    limit: WholeText = Field(default=1000, ge=1, le=10_000)
    queue: str | None = None


class StoreInfo(Shown):
    """The store. `settings` are what its backend tells; there are more of them in later versions."""

    backend: str
    url: str
    version: str
    schema_version: int
    pending_migrations: list[str]
    durability: str | None
    leases: list[LeaseInfo]
    settings: dict[str, Any]


class LeaseInfo(Shown):
    """A background loop of the cluster, and the process that runs it."""

    name: str
    holder: str
    token: int
    expires_at: datetime


class Check(Shown):
    """One thing that was looked at. `remedy` says what to do, where something should be done; `queue` and `kind` name
    what it is about, where it is one of them."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str | None
    queue: str | None
    kind: str | None


class Findings(Shown):
    """What `forge-jobs doctor` finds; at most ten seconds old. `ok`: nothing fails."""

    at: datetime
    ok: bool
    checks: list[Check]


class Me(Shown):
    """The caller. `queues`: the only ones that it sees. `read_only`: the server changes nothing for anybody."""

    name: str
    role: Literal["read", "operate", "admin"]
    queues: list[str] | None
    read_only: bool
    login: bool
    expires_at: datetime | None
    version: str


class AuditEntry(Shown):
    """What somebody did."""

    at: datetime
    actor: str
    role: str
    surface: str
    address: str | None
    request_id: str | None
    action: str
    target: str
    count: int
    outcome: str
    before: Any
    after: Any
