"""A worker process as the store knows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from forge_jobs.ids import JobId
from forge_jobs.storage.types.rate_limit import Gate


class ProcessState(StrEnum):
    """What a worker process is doing."""

    RUNNING = "running"
    DRAINING = "draining"
    FENCED = "fenced"


class ProcessWish(StrEnum):
    """What an operator asks of a process: to claim nothing more until it is resumed, or to stop."""

    QUIET = "quiet"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """Written whole with every heartbeat, so a row removed in error comes back with its full identity.

    `slots` maps each served queue to the slots open for it, `offered` to the most that the process would open of its
    total (older processes do not say), `running` each slot's process id to its job. `quiet`: it claims nothing, as
    an operator asked. `schedules` are those that its code declares.

    Of its kinds: `kinds` are those that it takes jobs of, `closed_kinds` those that it takes none of while too many
    threads of theirs were abandoned, `gates` those that a claim pays for, `priced_by_payload` those paid for after it,
    `alone_kinds` those that run with nothing beside them. It finds new jobs within `poll_ms`, at once if
    `wakes_proven`. `loops` are the instants, in microseconds, at which its background loops last succeeded.
    """

    host_id: str
    label: str | None
    host_name: str
    pid: int
    version: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    slots: dict[str, int]
    running: dict[str, str]
    state: ProcessState
    loop_lag_ms: float = 0.0
    abandoned_threads: int = 0
    offered: dict[str, int] = field(default_factory=dict)
    quiet: bool = False
    schedules: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    priced_by_payload: tuple[str, ...] = ()
    alone_kinds: tuple[str, ...] = ()
    closed_kinds: tuple[str, ...] = ()
    poll_ms: float = 500.0
    wakes_proven: bool = True
    loops: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRow:
    """A process that is, or was, alive. `live`: its heartbeat is younger than the stale threshold."""

    info: ProcessInfo
    started_at: datetime
    heartbeat_at: datetime
    live: bool


class Claimed(msgspec.Struct, frozen=True):
    """The identity of a claim, as a heartbeat names it. A struct, because one is made for every job run."""

    job_id: JobId
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatAnswer:
    """What a heartbeat learns: claims that are lost, jobs whose cancel is requested, and claims of this
    process that it did not name (a claim whose answer was lost, or is still on its way). `wish`: what an operator
    asks of it."""

    lost: frozenset[Claimed]
    cancel_requested: frozenset[JobId]
    strays: frozenset[Claimed]
    wish: ProcessWish | None = None
