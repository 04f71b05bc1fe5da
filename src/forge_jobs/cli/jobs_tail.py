"""`forge-jobs jobs tail`: events and log lines as they happen."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol, TypeAlias

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import Failure
from forge_jobs.cli.job_filter import names
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.parameters import global_options
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run
from forge_jobs.clock import from_us
from forge_jobs.ids import JobId, parse_id
from forge_jobs.redact import Secrets
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.log import LogLine
from forge_jobs.view import job as job_view
from forge_jobs.view.follow import Follower, LineFollower

POLL_S: Final = 0.5
LINGER: Final = timedelta(seconds=4)
"""So long after a job has ended its last lines are waited for."""
Happening: TypeAlias = JobEvent | LogLine


@rich_click.command("tail", cls=Command)
@rich_click.option("--queue", "queues", multiple=True, callback=names, help="Of this queue; several may be given.")
@rich_click.option("--kind", "kinds", multiple=True, callback=names, help="Of this kind; several may be given.")
@rich_click.option("--id", "ids", multiple=True, metavar="ID", help="Of this job, to its end; several may be given.")
@rich_click.option("--json", "--jsonl", "as_json", is_flag=True, help="Print one JSON document a line.")
@global_options
@click.pass_context
def tail(
    ctx: click.Context,
    queues: tuple[str, ...] | None,
    kinds: tuple[str, ...] | None,
    ids: tuple[str, ...],
    as_json: bool,
) -> None:
    """Follow events and log lines as they happen, until Ctrl-C. Above a thousand a second events come as counts.

    With --id from the beginning of these jobs to their end.

    \b
    Example:
      forge-jobs jobs tail --queue mail
      forge-jobs jobs tail --id 01JH3V7M8Q2X4N5P6R7S8T9VWX --jsonl
    """
    job_ids = [parse_id(id) for id in ids]

    def fits(one: Happening) -> bool:
        return (queues is None or one.queue in queues) and (kinds is None or one.kind in kinds)

    async def work(storage: Storage, settings: Settings) -> None:
        follower = _Jobs(storage, job_ids) if job_ids else _Everything(storage)
        output.say(f"following {storage.url}; Ctrl-C ends it")
        while True:
            over = await follower.over()
            happened = [one for one in await follower.new() if fits(one)]
            secrets = await storage.kinds.secrets() if happened else Secrets()
            for one in happened:
                _print(one, secrets, as_json)
            if over:
                return
            await asyncio.sleep(POLL_S)

    try:
        run(ctx, work)
    except KeyboardInterrupt:  # how it is meant to end
        pass


class _Follows(Protocol):
    async def new(self) -> list[Happening]:
        """What has turned up since the last call, oldest first."""

    async def over(self) -> bool:
        """Whether nothing more will come but what has turned up by now."""


class _Everything:
    """What happens from now on."""

    def __init__(self, storage: Storage) -> None:
        start = from_us(storage.clock.now_us())
        self._events, self._lines = Follower(storage, start), LineFollower(storage, start)

    async def new(self) -> list[Happening]:
        return _by_time([*await self._events.new(), *await self._lines.new()])

    async def over(self) -> bool:
        return False


class _Jobs:
    """Some jobs from their beginning to their end."""

    def __init__(self, storage: Storage, job_ids: Sequence[JobId]) -> None:
        self._storage = storage
        self._job_ids = job_ids
        self._seen_events: Counter[JobEvent] = Counter()
        self._seen_lines: set[tuple[str, int]] = set()

    async def new(self) -> list[Happening]:
        fresh: list[Happening] = []
        events: Counter[JobEvent] = Counter()
        for job_id in self._job_ids:
            events.update(await self._storage.events.of_job(job_id))
            for line in await self._storage.logs.of_job(job_id):
                if (job_id, line.seq) not in self._seen_lines:
                    self._seen_lines.add((job_id, line.seq))
                    fresh.append(line)
        fresh += (events - self._seen_events).elements()
        self._seen_events = events
        return _by_time(fresh)

    async def over(self) -> bool:
        now = from_us(self._storage.clock.now_us())
        for job_id in self._job_ids:
            detail = await self._storage.jobs.get(job_id)
            if detail is None:
                if not self._seen_events:
                    raise Failure(f"there is no job {job_id}", "`forge-jobs jobs list` shows the newest ones")
                continue  # deleted meanwhile
            ended = detail.row.completed_at
            if ended is None or now - ended < LINGER:
                return False
        return True


def _by_time(happenings: list[Happening]) -> list[Happening]:
    return sorted(happenings, key=lambda one: one.at_us)


def _print(one: Happening, secrets: Secrets, as_json: bool) -> None:
    if as_json:
        output.json_lines([job_view.log_line(one, secrets) if isinstance(one, LogLine) else job_view.event(one)])
    elif isinstance(one, LogLine):
        for text in job_view.log_text(one, secrets, job=True):
            output.line(text)
    else:
        _print_event(one)
    output.flush()


def _print_event(event: JobEvent) -> None:
    what = event.job_id or f"{event.count} jobs"
    parts = [job_view.clock(event.at_us), event.type.ljust(10), what, event.kind, f"queue={event.queue}"]
    if event.attempt is not None:
        parts.append(f"attempt={event.attempt}")
    if event.cause is not None:
        parts.append(f"cause={event.cause}")
    if event.duration_us is not None:
        parts.append(f"took={job_view.duration(event)}")
    output.line("  ".join(parts))
