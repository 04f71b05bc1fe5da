"""`forge-jobs doctor`: is anything wrong, and what helps?"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import FAILURE, describe
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.logs import talk
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import global_options, json_option
from forge_jobs.cli.schedules import is_led
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import opened, settings_of
from forge_jobs.cli.workers import describe as describe_unserved
from forge_jobs.runtime.schedules import undeclared
from forge_jobs.runtime.unserved import find_unserved, unknown_scopes
from forge_jobs.storage.error import ForgeError
from forge_jobs.storage.open import masked
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow, ProcessState
from forge_jobs.storage.types.schedule import ScheduleState

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
    """One thing looked at. `remedy` is there where something should be done."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str | None = None


@rich_click.command("doctor", cls=Command)
@json_option
@global_options
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check the store, the settings and the workers. Exit code 1 if something fails.

    \b
    Example:
      forge-jobs doctor
      forge-jobs doctor --json
    """
    settings = settings_of(ctx)
    talk(logging.ERROR)
    checks = [*_check_settings(settings), *asyncio.run(_check_store(settings))]
    failed = any(check.verdict is Verdict.FAIL for check in checks)
    if as_json:
        output.document(
            {"ok": not failed, "checks": [dataclasses.asdict(check) for check in checks], "config": _config(settings)}
        )
    else:
        _print(settings, checks)
    if failed:
        ctx.exit(FAILURE)


def _print(settings: Settings, checks: list[Check]) -> None:
    output.table(
        [Column("check"), Column("verdict"), Column("finding", wide=True)],
        [(check.name, check.verdict.value, check.detail) for check in checks],
    )
    todo = [check for check in checks if check.remedy]
    if todo:
        output.heading("what to do")
        output.fields((check.name, check.remedy) for check in todo)
    output.heading("settings")
    output.table(
        [Column("key"), Column("value"), Column("source")],
        [(one["key"], one["value"], one["source"]) for one in _config(settings)],
    )


def _config(settings: Settings) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": masked(value) if key == "database" else value, "source": str(settings.sources[key])}
        for key, value in sorted(settings.values.items())
    ]


def _check_settings(settings: Settings) -> list[Check]:
    if settings.notes:
        return [Check("settings", Verdict.WARN, note, "rename or remove it") for note in settings.notes]
    given = sum(settings.is_given(key) for key in settings.values)
    return [Check("settings", Verdict.OK, f"{given} given, {len(settings.values) - given} by default")]


async def _check_store(settings: Settings) -> list[Check]:
    try:
        async with opened(settings) as storage:
            status = await storage.maintenance.status()
            return [*_check_status(storage, status), *await _check_workers(storage, settings)]
    except ForgeError as error:
        text, hint, _ = describe(error)
        found, _, remedy = text.partition("; ")  # our messages end with what to do
        return [Check("store", Verdict.FAIL, found, hint or remedy or "`forge-jobs db status --debug` shows more")]


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
        *(check_server(status) if server else [_check_wal_reset(status)]),
    ]
    if "free_disk_bytes" in status:
        checks.append(_check_disk(status))
    if "wal_bytes" in status:
        checks.append(_check_wal_size(status))
    return checks


def check_server(status: dict[str, Any]) -> list[Check]:
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
        Check("size", Verdict.OK, f"the table of jobs has {output.size(status['jobs_bytes'])}"),
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
    detail = f"{output.size(free)} free, {share:g} % of a {status.get('file_system') or 'unknown'} file system"
    if free < FREE_DISK_FAIL_BYTES:
        return Check("disk", Verdict.FAIL, detail, "free some space: a full disk stops every enqueue")
    if share < FREE_DISK_WARN_PCT:
        return Check("disk", Verdict.WARN, detail, "free some space, or lower retain_done_days of the queues")
    return Check("disk", Verdict.OK, detail)


def _check_wal_size(status: dict[str, Any]) -> Check:
    detail = f"database {output.size(status['db_size_bytes'])}, write-ahead log {output.size(status['wal_bytes'])}"
    if status["wal_bytes"] > WAL_WARN_BYTES:
        remedy = "look for a program that keeps a read transaction open on the file; a worker shrinks the log"
        return Check("size", Verdict.WARN, detail, remedy)
    return Check("size", Verdict.OK, detail)


async def _check_workers(storage: Storage, settings: Settings) -> list[Check]:
    processes = await storage.processes.list(settings.runtime.stale_after)
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
    unserved = await find_unserved(storage, processes)
    checks += [
        Check(
            "unserved",
            Verdict.WARN,
            describe_unserved(one),
            f"start a worker with --queues {one.queue}"
            if one.kind is None
            else f"deploy a handler for {one.kind}, or delete its jobs",
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
        )
        for scope in lost
    ] or [Check("rate limits", Verdict.OK, f"all {len(wanted)} that live workers pay from exist")]


async def _check_schedules(storage: Storage, processes: Sequence[ProcessRow]) -> list[Check]:
    found = await storage.schedules.list()
    checks = [
        Check(
            "schedules",
            Verdict.WARN,
            f"{one.name} is invalid: {one.last_error}",
            f"forge-jobs schedules set {one.name} --expr or --zone",
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
        )
        for one in found
        if one.state is ScheduleState.ACTIVE and one.consecutive_errors
    ]
    checks += [
        Check(
            "schedules",
            Verdict.WARN,
            f"{name} is undeclared: no live worker's code declares it, and it goes on firing",
            f"forge-jobs schedules remove {name}",
        )
        for name in sorted(undeclared(found, processes))
    ]
    active = sum(one.state is ScheduleState.ACTIVE for one in found)
    if active and any(row.live for row in processes) and not await is_led(storage):
        checks.append(
            Check("schedules", Verdict.WARN, "no worker fires schedules", "upgrade the workers, or see their logs")
        )
    return checks or [Check("schedules", Verdict.OK, f"{active} active" if found else "none")]
