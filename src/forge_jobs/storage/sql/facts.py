"""What is known of a queue and its workers, read in one snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec

from forge_jobs.clock import duration_us, from_us
from forge_jobs.ids import JobId
from forge_jobs.storage.explain.facts import Oldest, QueueFacts, Worker
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.rate_limits import look_at_buckets
from forge_jobs.storage.sql.rows import queue_settings
from forge_jobs.storage.types.process import ProcessInfo, ProcessRow, ProcessState
from forge_jobs.storage.types.queue import QueueSettings

GET_QUEUE = statement("get_queue")
LIST_PAUSES = statement("list_pauses")
LIST_PROCESSES = statement("list_processes")
LIST_SHARES = statement("list_shares")
RUNNING_BY_HOST = statement("running_by_host")
OLDEST_RUNNING = statement("oldest_running")
METRIC_SERIES = statement("metric_series")

CUT_OFF_PART: Final = 2 / 3
"""From this part of the stale threshold on a process that was not heard of has stopped claiming."""
HOUR_US: Final = 3_600_000_000
ALL_OF_IT: Final = 1 << 60
"""A bucket that is wider than any stretch of time."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Every process on the list, and the host ids of those that were heard of lately."""

    rows: tuple[ProcessRow, ...]
    heard: frozenset[str]

    def of(self, host_id: str | None) -> ProcessRow | None:
        return next((row for row in self.rows if row.info.host_id == host_id), None)

    @property
    def live(self) -> list[ProcessRow]:
        return [row for row in self.rows if row.live]


def read_fleet(tx: Tx, stale_after: timedelta) -> Fleet:
    """The processes, with the two ages at which a silence means something."""
    rows = tuple(
        ProcessRow(
            info=msgspec.json.decode(info, type=ProcessInfo),
            started_at=from_us(started),
            heartbeat_at=from_us(beat),
            live=bool(live),
        )
        for info, started, beat, live in tx.rows(LIST_PROCESSES, {"stale": duration_us(stale_after)})
    )
    young = tx.rows(LIST_PROCESSES, {"stale": duration_us(stale_after * CUT_OFF_PART)})
    heard = {row.info.host_id for row, (_, _, _, is_young) in zip(rows, young, strict=True) if is_young}
    return Fleet(rows, frozenset(heard))


def read_queue(tx: Tx, name: str) -> QueueSettings | None:
    """The queue's settings and pauses."""
    row = tx.row(GET_QUEUE, {"name": name})
    return None if row is None else queue_settings(row, [pause for pause in tx.rows(LIST_PAUSES) if pause[0] == name])


def queue_facts(
    tx: Tx, settings: QueueSettings, fleet: Fleet, stale_after: timedelta, *, kind: str | None = None
) -> QueueFacts:
    """Everything that the queue's jobs depend on; the median run of `kind`, or of all kinds."""
    workers = list(_workers(tx, settings.name, fleet))
    silent = [row for row in fleet.rows if not row.live and settings.name in row.info.queues]
    return QueueFacts(
        settings=settings,
        now_us=tx.now_us,
        stale_after=stale_after,
        workers=workers,
        live_processes=len(fleet.live),
        reapers=sum(loop_moves(row.info, "reaper", tx.now_us, stale_after) for row in fleet.live),
        last_served=max(silent, key=lambda row: row.heartbeat_at, default=None),
        buckets=look_at_buckets(tx, {gate.scope for worker in workers for gate in worker.info.gates}),
        oldest=_oldest(tx, settings.name),
        median_run=_median_run(tx, settings.name, kind),
    )


def loop_moves(info: ProcessInfo, loop: str, now_us: int, within: timedelta) -> bool:
    """Whether a background loop of a process succeeded lately. One that did not begin yet, or of an older version that
    does not say, gets the benefit of the doubt."""
    last_us = info.loops.get(loop)
    return last_us is None or now_us - last_us <= duration_us(within)


def _workers(tx: Tx, queue: str, fleet: Fleet) -> Iterable[Worker]:
    shares = {host: (share, slots) for name, host, share, slots in tx.rows(LIST_SHARES) if name == queue}
    busy, busy_in_all = Counter[str](), Counter[str]()
    for host, name, count in tx.rows(RUNNING_BY_HOST):
        busy_in_all[host] += count
        if name == queue:
            busy[host] += count
    for row in fleet.live:
        info, host = row.info, row.info.host_id
        if queue in info.queues:
            share, slots = shares.get(host, (None, info.slots.get(queue, 0)))
            yield Worker(
                info=info,
                cut_off=host not in fleet.heard or info.state is ProcessState.FENCED,
                slots=slots,
                busy=busy[host],
                busy_in_all=busy_in_all[host],
                share=share,
            )


def _oldest(tx: Tx, queue: str) -> Oldest | None:
    row = tx.row(OLDEST_RUNNING, {"queue": queue})
    return None if row is None else Oldest(job_id=JobId(row[0]), started_us=row[1])


def _median_run(tx: Tx, queue: str, kind: str | None) -> timedelta | None:
    """Of the last hour, as the metrics have it."""
    params = {"metric": "proc_ms", "since": tx.now_us - HOUR_US, "until": tx.now_us, "bucket": ALL_OF_IT}
    row = tx.row(METRIC_SERIES, {**params, "queue": queue, "kind": kind, "host": None})
    return None if row is None or row[4] is None else timedelta(milliseconds=row[4])
