"""How the demo is run: its size, its limits, and the timings scaled down so that a crash is over in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Final
from uuid import uuid4

from forge_jobs import RuntimeConfig
from forge_jobs.demo.jobs import UPSTREAM_LIMIT
from forge_jobs.storage.types.queue import BackoffPolicy, QueueChange
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration

MIN_ITEMS: Final = 100
SECONDS_OF_BUDGET: Final = 15
BUDGET_PER_S: Final = (4, 28)
"""The budget is the corpus over the former, within the latter: a run lasts half a minute, and no machine is too slow to
exceed it."""
LIMIT_BURST_S: Final = 0.2
LIMIT_SHARE: Final = 0.8
"""The workers' rate limit: what of the upstream's budget per second fits their bucket, and what of it flows in."""
STRANGER_AT: Final = 0.12
"""The share of the files after which another client takes the upstream's budget."""

TIMINGS: Final = RuntimeConfig(
    heartbeat_s=0.3, stale_s=2.0, reaper_s=0.3, supervisor_s=0.2, poll_ms=100, shutdown_grace_s=0.7
)
BACKOFF: Final = QueueChange(backoff_base_s=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. `kill_at` and `stop_at` are shares of the files that have ended; `slots` are per queue and worker.

    `budget_per_s` is how many requests the upstream answers; by default it follows from the number of files.
    `server` is the URL of a PostgreSQL server to work on, in a schema made for the run; else it is a file.
    """

    items: int = 400
    seed: int = 1
    budget_per_s: int | None = None
    slots: int = 6
    kill_at: float = 0.25
    stop_at: float = 0.55
    time_limit_s: float = 120.0
    server: str | None = None
    schema: str = field(default_factory=lambda: f"forge_demo_{uuid4().hex[:12]}")

    @property
    def workers(self) -> int:
        """How many begin: a fleet where there may be one."""
        return 2 if self.server is None else 3

    def budget(self, files: int) -> int:
        """Requests per second that the upstream answers for a corpus of so many files."""
        least, most = BUDGET_PER_S
        return self.budget_per_s or min(max(files // SECONDS_OF_BUDGET, least), most)

    def rate_limit(self, budget: int) -> RateLimitDeclaration:
        """What all workers together may ask of an upstream with such a budget.

        It lets through less than the upstream does, so that requests which were granted but are late, and so come
        closer together than the grants, do not exceed the budget.
        """
        return RateLimitDeclaration(
            scope=UPSTREAM_LIMIT, capacity=max(1.0, LIMIT_BURST_S * budget), refill_per_s=LIMIT_SHARE * budget
        )


def environment(outer: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: `outer` without the settings of another forge-jobs, and with the timings."""
    own = {key: value for key, value in outer.items() if not key.startswith("FORGE_")}
    own["FORGE_EVENT_FLUSH_S"] = "0.2"
    own["FORGE_METRICS_S"] = "5"  # so that the dashboard's charts show a minute when it is over
    return own | {f"FORGE_{name.upper()}": f"{value:g}" for name, value, _ in scaled()}


def scaled() -> Iterator[tuple[str, float, float]]:
    """The timings that differ from their default: name, value, default."""
    usual = RuntimeConfig()
    for one in fields(RuntimeConfig):
        value, default = getattr(TIMINGS, one.name), getattr(usual, one.name)
        if value != default:
            yield one.name, value, default


def timings_in_words() -> str:
    """What was scaled down, for the first lines of the demo."""
    parts = [f"{name} {value:g} (default {default:g})" for name, value, default in scaled()]
    parts.append(f"backoff base {BACKOFF.backoff_base_s:g} s (default {BackoffPolicy().base_s:g})")
    return ", ".join(parts)
