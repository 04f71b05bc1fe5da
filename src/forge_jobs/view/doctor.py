"""Is anything wrong with a store, its workers or its schedules, and what helps?"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from forge_jobs.runtime.schedules import is_led, undeclared
from forge_jobs.runtime.unserved import find_unserved, unknown_scopes
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow, ProcessState
from forge_jobs.storage.types.schedule import Schedule, ScheduleState
from forge_jobs.text import size
from forge_jobs.view.process import unserved_in_words

FREE_DISK_WARN_PCT: Final = 10
FREE_DISK_FAIL_BYTES: Final = 64 * 1024 * 1024
WAL_WARN_BYTES: Final = 64 * 1024 * 1024
"""Workers checkpoint long before that; a larger log says that something keeps them from it."""
CLOCK_WARN_MS: Final = 5_000


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `remedy` is there where something is to be done, `queue` or `kind` where it is about one."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str | None = None
    queue: str | None = None
    kind: str | None = None


async def examine(storage: Storage, processes: Sequence[ProcessRow]) -> list[Check]:
    """Everything that can be checked of an open store and its workers. Nothing is changed.

    `processes` is what `storage.processes.list` gives. Several checks may have one name.
    """
    status = await storage.maintenance.status()
    return [*_check_status(storage, status), *await _check_workers(storage, processes)]


def _check_status(storage: Storage, status: dict[str, Any]) -> list[Check]:
    lacking = status.get("pending_migrations") or []
    server = status["backend"] == "postgresql"
    program = f"PostgreSQL {status['server_version']}" if server else f"SQLite {status['sqlite_version']}"
    checks = [
        Check("store", Verdict.OK, f"{storage.url}, {program}, Python {platform.python_version()}"),
        Check(
            "schema",
            Verdict.WARN if lacking else Verdict.OK,
            f"version {status['schema_version']}" + (f", lacks {', '.join(lacking)}" if lacking else ""),
            "forge-jobs db migrate" if lacking else None,
        ),
        _check_durability(status),
        *(_check_server(status) if server else [_check_wal_reset(status)]),
    ]
    if "free_disk_bytes" in status:
        checks.append(_check_disk(status))
    if "wal_bytes" in status:
        checks.append(_check_wal_size(status))
    return checks


def _check_server(status: dict[str, Any]) -> list[Check]:
    """What is particular to a PostgreSQL server."""
    used, most = status["server_connections"], status["max_connections"]
    need = status["connections_of_a_process"]
    room = most - used
    ahead = status["clock_ahead_of_host_ms"]
    return [
        _check_sync(status),
        Check(
            "connections",
            Verdict.OK if room > 2 * need else Verdict.WARN,
            f"a process holds at most {need}, whatever its slots; {used} of {most} are in use, "
            f"{status['our_connections']} of them ours",
            None if room > 2 * need else "raise max_connections, or put a pooler between",
        ),
        _check_notifications(status),
        Check(
            "clock",
            Verdict.OK if abs(ahead) < CLOCK_WARN_MS else Verdict.WARN,
            f"the server is {abs(ahead) / 1000:.1f} s {'ahead of' if ahead >= 0 else 'behind'} this host; it decides",
            None if abs(ahead) < CLOCK_WARN_MS else "harmless for jobs; set this host's clock so that logs agree",
        ),
        Check("size", Verdict.OK, f"the table of jobs has {size(status['jobs_bytes'])}"),
    ]


def _check_notifications(status: dict[str, Any]) -> Check:
    name, direct = "notifications", "set listen_url to a direct connection"
    match status["listens"]:
        case "direct" if status["pooled"]:
            return Check(name, Verdict.OK, "a pooler stands between; workers listen directly, by listen_url")
        case "direct":
            return Check(name, Verdict.OK, "a direct connection")
        case "off":
            return Check(name, Verdict.OK, "switched off by the setting notify: workers find jobs by polling")
        case "unreachable":
            return Check(name, Verdict.WARN, "listen_url cannot be reached: workers find jobs by polling", direct)
        case _:
            return Check(name, Verdict.WARN, "a pooler stands between: workers find jobs by polling", direct)


def _check_sync(status: dict[str, Any]) -> Check:
    if status["fsync"] != "on" or status["full_page_writes"] != "on":
        return Check(
            "disk",
            Verdict.FAIL,
            f"fsync is {status['fsync']}, full_page_writes {status['full_page_writes']}: a crash can lose the database",
            "set both to on in postgresql.conf",
        )
    if status["synchronous_commit"] == "off":
        return Check(
            "disk",
            Verdict.WARN,
            "synchronous_commit is off: the newest jobs may be lost with the power",
            "set synchronous_commit = on",
        )
    return Check("disk", Verdict.OK, f"fsync on, synchronous_commit {status['synchronous_commit']}")


def _check_durability(status: dict[str, Any]) -> Check:
    if status["durability"] == "full":
        return Check("durability", Verdict.OK, "full: what was acknowledged survives power loss")
    return Check(
        "durability",
        Verdict.WARN,
        f"{status['durability']}: the newest jobs may be lost with the power",
        'set durability = "full" unless that is meant',
    )


def _check_wal_reset(status: dict[str, Any]) -> Check:
    version = status["sqlite_version"]
    if status["wal_reset_safe"]:
        return Check("wal-reset", Verdict.OK, f"SQLite {version} has the fix for the WAL reset fault")
    return Check(
        "wal-reset",
        Verdict.WARN,
        f"SQLite {version} has the WAL reset fault; forge-jobs is safe from it: {status['wal_reset_defence']}",
        "let no other program checkpoint this file: PRAGMA wal_autocheckpoint=0 on connections of your own, "
        "or use SQLite 3.51.3, 3.50.7 or 3.44.6",
    )


def _check_disk(status: dict[str, Any]) -> Check:
    free, share = status["free_disk_bytes"], status["free_disk_pct"]
    detail = f"{size(free)} free, {share:g} % of a {status.get('file_system') or 'unknown'} file system"
    if free < FREE_DISK_FAIL_BYTES:
        return Check("disk", Verdict.FAIL, detail, "free some space: a full disk stops every enqueue")
    if share < FREE_DISK_WARN_PCT:
        return Check("disk", Verdict.WARN, detail, "free some space, or lower retain_done_days of the queues")
    return Check("disk", Verdict.OK, detail)


def _check_wal_size(status: dict[str, Any]) -> Check:
    detail = f"database {size(status['db_size_bytes'])}, write-ahead log {size(status['wal_bytes'])}"
    if status["wal_bytes"] > WAL_WARN_BYTES:
        remedy = "look for a program that keeps a read transaction open on the file; a worker shrinks the log"
        return Check("size", Verdict.WARN, detail, remedy)
    return Check("size", Verdict.OK, detail)


async def _check_workers(storage: Storage, processes: Sequence[ProcessRow]) -> list[Check]:
    live = [row for row in processes if row.live]
    fenced = [row.info.label or row.info.host_id for row in live if row.info.state is ProcessState.FENCED]
    checks = [Check("workers", Verdict.OK, f"{len(live)} alive" if live else "none alive")]
    if fenced:
        checks.append(
            Check(
                "workers",
                Verdict.WARN,
                f"fenced: {', '.join(fenced)}",
                "see its log: it cannot reach the store in time",
            )
        )
    unserved = await find_unserved(storage, processes, await storage.jobs.recent_waiting_kinds())
    checks += [
        Check(
            "unserved",
            Verdict.WARN,
            unserved_in_words(one),
            f"start a worker with --queues {one.queue}"
            if one.kind is None
            else f"deploy a handler for {one.kind}, or delete its jobs",
            queue=one.queue,
        )
        for one in unserved
    ]
    if not unserved:
        checks.append(Check("unserved", Verdict.OK, "every waiting job has a worker that can run it"))
    checks += await _check_scopes(storage, live)
    return [*checks, *await _check_schedules(storage, processes)]


async def _check_scopes(storage: Storage, live: Sequence[ProcessRow]) -> list[Check]:
    """The rate limits that live workers pay from and that do not exist: what they limit waits for ever."""
    wanted = {gate.scope: gate.kind for row in live for gate in row.info.gates}
    if not wanted:
        return []
    lost = sorted(unknown_scopes(wanted, await storage.rate_limits.list()))
    return [
        Check(
            "rate limits",
            Verdict.WARN,
            f"{scope} does not exist, so jobs of kind {wanted[scope]} wait for ever",
            f"forge-jobs limits add {scope} --capacity N --refill N, or declare it in code",
            kind=wanted[scope],
        )
        for scope in lost
    ] or [Check("rate limits", Verdict.OK, f"all {len(wanted)} that live workers pay from exist")]


async def _check_schedules(storage: Storage, processes: Sequence[ProcessRow]) -> list[Check]:
    found = sorted(await storage.schedules.list(), key=lambda one: one.name)
    lost = undeclared(found, processes)
    checks = [
        Check(
            "schedules",
            Verdict.WARN,
            f"{one.name} is invalid: {one.last_error}",
            f"forge-jobs schedules set {one.name} --expr or --zone",
            **_of(one),
        )
        for one in found
        if one.state is ScheduleState.INVALID
    ]
    checks += [
        Check(
            "schedules",
            Verdict.WARN,
            f"{one.name} failed {one.consecutive_errors} times: {one.last_error}",
            "it is tried again every few seconds; see to what it says",
            **_of(one),
        )
        for one in found
        if one.state is ScheduleState.ACTIVE and one.consecutive_errors
    ]
    checks += [
        Check(
            "schedules",
            Verdict.WARN,
            f"{one.name} is undeclared: no live worker's code declares it, and it goes on firing",
            f"forge-jobs schedules remove {one.name}",
            **_of(one),
        )
        for one in found
        if one.name in lost
    ]
    active = sum(one.state is ScheduleState.ACTIVE for one in found)
    if active and any(row.live for row in processes) and not await is_led(storage):
        checks.append(
            Check("schedules", Verdict.WARN, "no worker fires schedules", "upgrade the workers, or see their logs")
        )
    return checks or [Check("schedules", Verdict.OK, f"{active} active" if found else "none")]


def _of(schedule: Schedule) -> dict[str, str | None]:
    return {"queue": schedule.settings.queue, "kind": schedule.settings.kind}
