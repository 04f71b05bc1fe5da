"""The knobs of a worker process and of a store, checked when built.

Plain frozen values with defaults; where they come from (command line, environment, file) is the command
line's business. An error names the key, the value, the rule, and for unknown keys the nearest legal one.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final

from forge_jobs import limits
from forge_jobs.storage.error import ConfigError

DURABILITIES: Final = ("full", "process")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """How a worker process behaves. Times are seconds unless the name says otherwise.

    heartbeat_s / stale_s: an owner beats this often, and loses its jobs after this long a silence.
    reaper_s: how often silent owners are looked for. supervisor_s: how often slots are compared to their target.
    poll_ms: how long an idle claim waits when no wake arrives.
    rebalance_s: how often totals are split anew when nothing asks for it sooner. lease_ttl_s: how long a background
    loop of the cluster stands still when the process that ran it dies.
    cleanup_s: how often retention runs. metrics_s: how often events are rolled up.
    shutdown_grace_s: how long handlers get to end by themselves.
    cancel_grace_s: how long after the signal a handler that ignores a cancel or timeout is ended.
    slots: most slots of one queue. max_crashes: crashes after which a job is dead. max_abandoned_threads: while so many
    threads of handlers that ignored their end run on, no job is claimed that needs a thread. max_attempts: runs of a
    job whose request and handler name none. max_jobs, max_rss_mib: a process that has begun so many jobs, or has grown
    so large, takes no more, finishes those that it has, and ends; 0 for never.

    Of handlers that run in child processes: max_jobs_per_child and max_child_rss_mib: a child that has had so many
    jobs, or has grown so large, is replaced after its job. child_memory_mib, child_processes, child_open_files: what
    the system lets one use (RLIMIT_AS, _NPROC, _NOFILE). All of these 0 for no limit. child_env: the variables of the
    environment that children get besides PATH, HOME, LANG and TZ; "*" is all of them.
    """

    heartbeat_s: float = 5.0
    stale_s: float = 30.0
    reaper_s: float = 5.0
    supervisor_s: float = 1.0
    poll_ms: float = 500.0
    rebalance_s: float = 5.0
    lease_ttl_s: float = 15.0
    cleanup_s: float = 300.0
    metrics_s: float = 60.0
    shutdown_grace_s: float = 5.0
    cancel_grace_s: float = 5.0
    slots: int = 10
    max_crashes: int = 3
    max_attempts: int = 5
    max_abandoned_threads: int = 16
    max_jobs: int = 0
    max_rss_mib: int = 0
    max_jobs_per_child: int = 0
    max_child_rss_mib: int = 0
    child_memory_mib: int = 0
    child_processes: int = 0
    child_open_files: int = 0
    child_env: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            check_number(name, getattr(self, name), low, high, whole=name in _WHOLE)
        object.__setattr__(self, "child_env", _variables(self.child_env))
        if self.stale_s < 5 * self.heartbeat_s:
            raise ConfigError(
                f"stale_s {self.stale_s:g} must be at least 5 × heartbeat_s ({self.heartbeat_s:g}), "
                "or a late heartbeat would cost a healthy worker its jobs"
            )
        if self.stale_s < 2 * self.reaper_s:
            raise ConfigError(f"stale_s {self.stale_s:g} must be at least 2 × reaper_s ({self.reaper_s:g})")

    @property
    def stale_after(self) -> timedelta:
        return timedelta(seconds=self.stale_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """How a store is opened. `durability`: `full` survives power loss, `process` only the death of processes.

    store_deadline_s: no call on the store takes longer. payload_max: largest payload in bytes as stored.
    event_flush_s: how often events are written. read_only: the store is only looked at, and every change is refused.

    Of PostgreSQL alone: schema: where the tables are. auto_migrate: whether opening a store may bring an older schema
    up to date (an empty one is always filled). notify: tell other processes of new jobs with NOTIFY, and listen.
    listen_url: a direct connection for that, where the URL of the store leads through a pooler.
    """

    durability: str = "full"
    store_deadline_s: float = 10.0
    payload_max: int = limits.PAYLOAD_MAX_BYTES
    event_flush_s: float = 2.0
    force_network_fs: bool = False
    read_only: bool = False
    schema: str = "forge"
    auto_migrate: bool = False
    notify: bool = True
    listen_url: str | None = None

    def __post_init__(self) -> None:
        if re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", self.schema) is None:
            raise ConfigError(
                f"schema {self.schema!r} must be 1 to 63 of the characters a-z, 0-9 and _, not beginning with a digit"
            )
        if self.durability not in DURABILITIES:
            raise ConfigError(f"durability {self.durability!r} must be one of {', '.join(DURABILITIES)}")
        check_number("store_deadline_s", self.store_deadline_s, 0.1, 600)
        check_number("event_flush_s", self.event_flush_s, 0.01, 3600)
        check_number("payload_max", self.payload_max, 1, limits.PAYLOAD_CEILING_BYTES, whole=True)


_WHOLE: Final = frozenset(
    {"slots", "max_crashes", "max_attempts", "max_abandoned_threads", "max_jobs", "max_rss_mib",
     "max_jobs_per_child", "max_child_rss_mib",
     "child_memory_mib", "child_processes", "child_open_files"}
)  # fmt: skip
_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "heartbeat_s": (0.01, 3600),
    "stale_s": (0.05, 86_400),
    "reaper_s": (0.01, 3600),
    "supervisor_s": (0.01, 60),
    "poll_ms": (1, 60_000),
    "rebalance_s": (0.01, 3600),
    "lease_ttl_s": (0.05, 3600),
    "cleanup_s": (0.1, 86_400),
    "metrics_s": (0.1, 3600),
    "shutdown_grace_s": (0, 86_400),
    "cancel_grace_s": (0, 3600),
    "slots": (1, limits.SLOTS_PER_PROCESS),
    "max_crashes": limits.MAX_CRASHES,
    "max_attempts": limits.MAX_ATTEMPTS,
    "max_abandoned_threads": (1, limits.SLOTS_PER_PROCESS),
    "max_jobs": (0, 1_000_000_000),
    "max_rss_mib": (0, 1_000_000_000),
    "max_jobs_per_child": (0, 1_000_000_000),
    "max_child_rss_mib": (0, 1_000_000_000),
    "child_memory_mib": (0, 1_000_000_000),
    "child_processes": (0, 1_000_000),
    "child_open_files": (0, 1_000_000),
}


def _variables(names: Any) -> tuple[str, ...]:
    if isinstance(names, (list, tuple)) and all(type(name) is str and name and "=" not in name for name in names):
        return tuple(names)
    raise ConfigError(f'child_env {names!r} must be a list of names of variables such as ["DJANGO_SETTINGS_MODULE"]')


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Raise `ConfigError` unless `value` is a finite number (a whole one if so asked) within the bounds."""
    legal = type(value) is int or (not whole and type(value) is float and math.isfinite(value))
    if not legal:
        raise ConfigError(f"{name} {value!r} must be a {'whole ' if whole else ''}number")
    if not low <= value <= high:
        raise ConfigError(f"{name} {value!r} is not within {low:g} … {high:g}")


def known_keys(*kinds: type) -> frozenset[str]:
    """The keys that these configuration classes understand."""
    return frozenset(f.name for kind in kinds for f in fields(kind))


def unknown_key(key: str, legal: Iterable[str]) -> ConfigError:
    """The error for a key that nobody knows, with the nearest one that somebody does."""
    near = difflib.get_close_matches(key, list(legal), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"unknown key {key!r}{hint}")
