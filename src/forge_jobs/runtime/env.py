"""What lives as long as the worker process, handed to everything in it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from forge_jobs.clock import Clock
from forge_jobs.config import RuntimeConfig
from forge_jobs.ids import new_id
from forge_jobs.observe import Observer, tell
from forge_jobs.runtime.children import Children
from forge_jobs.runtime.gauges import ProcessGauges
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.lifespan import State
from forge_jobs.runtime.routing import Router, fill
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Finalize, Settled
from forge_jobs.storage.types.job import EnqueueRequest
from forge_jobs.storage.types.metric import Tally
from forge_jobs.storage.types.queue import QueueSettings

log = logging.getLogger("forge_jobs.runtime")

LONG_SILENCE: Final = 10
"""A process silent for this many stale thresholds is gone, whatever happened to the store."""

if TYPE_CHECKING:
    from forge_jobs.runtime.deadlines import Deadlines
    from forge_jobs.runtime.deaths import Deaths
    from forge_jobs.runtime.exchange import Exchanger
    from forge_jobs.runtime.executors.placement import Placement
    from forge_jobs.runtime.executors.process import Processes
    from forge_jobs.runtime.executors.thread import Threads
    from forge_jobs.runtime.job_log import JobLogs
    from forge_jobs.runtime.loops.heartbeat import Heartbeat
    from forge_jobs.runtime.running import RunningTable


@dataclass(slots=True)
class LoopHealth:
    """How a background loop fares. `leading`: it is this process that holds the loop's lease."""

    runs: int = 0
    errors: int = 0
    last_success_us: int | None = None
    last_error: str | None = None
    leading: bool = False


@dataclass(slots=True)
class Health:
    """What is known of this process: its ties to the store, its loops, its counts.

    `counts` holds, among others, finished, released, abandoned, lost, timeouts and loop errors.
    """

    last_beat_us: int = 0
    """When the last accepted heartbeat was sent, by the elapsed clock."""
    beats: int = 0
    fenced: bool = False
    claims_stopped: bool = False
    """No beat was accepted for a while: no claims until one is."""
    quiet: bool = False
    """An operator asked for no more claims."""
    reap_not_before_us: int = 0
    loop_lag_ms: float = 0.0
    loop_lags_ms: Tally = field(default_factory=Tally)
    """Since they were last recorded."""
    fatal: BaseException | None = None
    loops: dict[str, LoopHealth] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, eq=False)
class RuntimeEnv:
    """The process: its store, handlers, settings, identity, and what runs in it."""

    storage: Storage
    handlers: HandlerRegistry
    router: Router
    config: RuntimeConfig
    label: str | None
    host_id: str = field(default_factory=new_id)
    health: Health = field(default_factory=Health)
    gauges: ProcessGauges = field(default_factory=ProcessGauges)
    settings: dict[str, QueueSettings] = field(default_factory=dict)
    """The last settings read of each served queue."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: defaultdict[str, list[asyncio.Event]] = field(default_factory=lambda: defaultdict(list))
    """Who wants to hear of wakes that name something else than a queue."""
    cron_due_us: int | None = None
    """When the next schedule is due, as the last pass over them saw it; None if none is."""
    state: State = field(default_factory=State)
    """The resources that the handlers share."""
    children: Children = field(default_factory=Children)
    retiring: bool = False
    """It takes no more jobs, finishes those that it has, and ends."""
    started: int = 0
    """Jobs that it began to run."""
    on_settled: Callable[[Finalize, Settled], None] | None = None
    """Told of every outcome that the store has written: how a test learns what became of what it ran."""
    running: RunningTable = field(init=False)
    job_logs: JobLogs = field(init=False)
    exchanger: Exchanger = field(init=False)
    deadlines: Deadlines = field(init=False)
    heartbeat: Heartbeat = field(init=False)
    deaths: Deaths = field(init=False)
    placement: Placement = field(init=False)
    threads: Threads = field(init=False)
    processes: Processes = field(init=False)

    @property
    def clock(self) -> Clock:
        return self.storage.clock

    @property
    def observer(self) -> Observer:
        return self.storage.observer

    @property
    def leaving(self) -> bool:
        """Whether no more jobs are taken, for good."""
        return self.retiring or self.stopping.is_set()

    def retire(self, why: str) -> None:
        """Take no more jobs; the handlers that run hear nothing of it. `why` is the setting that asks for it."""
        if not self.retiring:
            self.retiring = True
            tell(log, logging.INFO, "retiring", why=why, started=self.started, running=len(self.running))
            self.heartbeat.mark_draining()
            for line in self.exchanger.lines.values():
                line.supervisor.look()

    def queue_settings(self, queue: str) -> QueueSettings:
        """The last settings read, or the defaults."""
        return self.settings.get(queue) or QueueSettings(name=queue)

    def max_crashes(self, kind: str) -> int:
        """Crashes after which a job of this kind is dead."""
        entry = self.handlers.get(kind)
        own = entry.options.max_crashes if entry is not None else None
        return own if own is not None else self.config.max_crashes

    def fill(self, request: EnqueueRequest) -> EnqueueRequest:
        """The request with what it left out: queue and max_attempts."""
        return fill(request, self.router, self.handlers, max_attempts=self.config.max_attempts)

    def silent_us(self) -> int:
        """How long no beat has been accepted."""
        return self.clock.elapsed_us() - self.health.last_beat_us

    @property
    def claims_valid_until_us(self) -> int:
        """Until when on the elapsed clock this process may claim, unless it beats again: well before others may take
        what it has."""
        return self.health.last_beat_us + round((self.config.stale_s - 2 * self.config.heartbeat_s) * 1e6)

    @property
    def just_back(self) -> bool:
        """Whether this process's own beats failed until a moment ago: an outage looks to it as if the others were
        dead, and they get the chance to beat first."""
        return self.clock.elapsed_us() < self.health.reap_not_before_us

    @property
    def takeover_after(self) -> timedelta:
        """How long another process must have been silent before its slots are taken over."""
        return self.config.stale_after * (LONG_SILENCE if self.just_back else 1)

    @property
    def beat_overdue(self) -> bool:
        """Whether this process slept, or was cut off: it beats before it does anything else."""
        return self.silent_us() > 2 * self.config.heartbeat_s * 1e6
