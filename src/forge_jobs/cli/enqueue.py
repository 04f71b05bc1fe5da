"""`forge-jobs enqueue`: add one job, or a file of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import rich_click

from forge_jobs.cli import output
from forge_jobs.cli.errors import Usage
from forge_jobs.cli.lazy_group import Command
from forge_jobs.cli.parameters import Duration, Instant, global_options, json_option
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import run, settings_of
from forge_jobs.ids import new_id
from forge_jobs.payload import parse_json
from forge_jobs.runtime.routing import DefaultRouter, fill
from forge_jobs.storage.error import InvalidPayload
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.request import check_request
from forge_jobs.storage.types.job import Deduped, Enqueued, EnqueueOutcome, EnqueueRequest, OnConflict


@rich_click.command("enqueue", cls=Command)
@rich_click.argument("kind", required=False)
@rich_click.argument("payload", required=False)
@rich_click.option(
    "--queue", metavar="NAME", help="The queue; `default` if not given. With --bulk, of lines without one."
)
@rich_click.option("--priority", type=int, help="-1000 to 1000, lower is claimed first; 0 if not given.")
@rich_click.option("--delay", type=Duration(), help="Not before this long from now: 90, 90s, 5m, 2h, 7d.")
@rich_click.option("--run-at", type=Instant(), help="Not before this instant, e.g. 2026-03-01T09:30:00Z.")
@rich_click.option("--max-attempts", type=int, help="Runs before the job is dead; 5 if not given.")
@rich_click.option("--dedupe-key", metavar="KEY", help="At most one job with this key waits or runs.")
@rich_click.option(
    "--on-conflict",
    type=click.Choice([policy.value for policy in OnConflict]),
    help="When the key is held: skip (default), replace the holder, or fail.",
)
@rich_click.option("--unique-for", type=Duration(), help="Hold the key for this long, also when the job is finished.")
@rich_click.option("--ttl", type=Duration(), help="Give up if it has not started within this time.")
@rich_click.option("--id", metavar="ULID", help="The job's id, so that a repeat is the same job.")
@rich_click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; up to 16 may be given.")
@rich_click.option("--bulk", metavar="FILE", help="Add one job for each line of a file of JSON objects; - is stdin.")
@rich_click.option("--skip", type=click.IntRange(0), help="With --bulk: pass over this many lines first.")
@rich_click.option("--atomic", is_flag=True, help="With --bulk: all lines or none, at most 10 000.")
@json_option
@global_options
@click.pass_context
def enqueue(
    ctx: click.Context,
    /,
    kind: str | None,
    payload: str | None,
    bulk: str | None,
    skip: int | None,
    atomic: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a job of KIND with PAYLOAD, which is JSON, `-` for stdin, or `@file`; `{}` if not given.

    Prints `enqueued` or `deduped` with the id. With --bulk each line of the file is an object with `kind`, and as far
    as wanted payload, queue, priority, max_attempts, dedupe_key, on_conflict, unique_for, run_at, delay, expires_at,
    ttl, id, tags and trace. A thousand lines are one transaction.

    \b
    Example:
      forge-jobs enqueue mail '{"to": "a@example.org"}' --delay 5m
      forge-jobs enqueue report @report.json --dedupe-key report-2026-03
      forge-jobs enqueue --bulk jobs.jsonl
    """
    if bulk is not None:
        _refuse_with_bulk(kind, options)
        from forge_jobs.cli.enqueue_bulk import BulkOrder, enqueue_file

        order = BulkOrder(file=bulk, skip=skip or 0, atomic=atomic, queue=options["queue"])
        enqueue_file(ctx, order, as_json=as_json)
        return
    if skip is not None or atomic:
        raise Usage(f"{'--atomic' if atomic else '--skip'} goes with --bulk FILE")
    if kind is None:
        raise Usage("give the KIND of the job, or --bulk FILE", "`forge-jobs enqueue --help` shows examples")
    request = _request(kind, payload, options)
    settings = settings_of(ctx)
    request = filled(request, settings)
    check_request(request, payload_max=settings.store.payload_max)  # before a store is made for it

    async def work(storage: Storage, settings: Settings) -> EnqueueOutcome:
        return await storage.jobs.enqueue(request)

    outcome = run(ctx, work, create=True)
    if as_json:
        output.document(outcome_fields(outcome))
    else:
        output.line(f"{'enqueued' if isinstance(outcome, Enqueued) else 'deduped'} {outcome.id}")


def filled(request: EnqueueRequest, settings: Settings) -> EnqueueRequest:
    """The request with an id, a queue and a number of attempts."""
    request = fill(request, DefaultRouter())
    if request.max_attempts is None:
        request = replace(request, max_attempts=settings.runtime.max_attempts)
    return replace(request, id=new_id()) if request.id is None else request


def outcome_fields(outcome: EnqueueOutcome) -> dict[str, Any]:
    """What became of a request, for programs."""
    match outcome:
        case Enqueued(id=id, repeated=repeated):
            return {"outcome": "enqueued", "id": id, "repeated": repeated}
        case Deduped(id=id, status=status):
            return {"outcome": "deduped", "id": id, "status": str(status)}


def _request(kind: str, payload: str | None, options: dict[str, Any]) -> EnqueueRequest:
    given = {name: value for name, value in options.items() if value is not None}
    if payload is not None:
        given["payload"] = parse_json(read_payload(payload))
    return EnqueueRequest(kind, **given)


def read_payload(text: str) -> str | bytes:
    """The text of a payload as a command line names it."""
    try:
        if text == "-":
            return sys.stdin.buffer.read()
        if text.startswith("@"):
            return Path(text[1:]).read_bytes()
    except OSError as error:
        raise Usage(f"payload {text!r} cannot be read: {error.strerror}") from error
    if not text:
        raise InvalidPayload("the payload is empty; leave it out for {}", field="payload", reason="invalid_json")
    return text


def _refuse_with_bulk(kind: str | None, options: dict[str, Any]) -> None:
    if kind is not None:
        raise Usage("give a KIND or --bulk FILE, not both")
    for name, value in options.items():
        if value not in (None, ()) and name != "queue":
            option = "--tag" if name == "tags" else f"--{name.replace('_', '-')}"
            raise Usage(f"{option} does not go with --bulk: give it on the lines of the file")
