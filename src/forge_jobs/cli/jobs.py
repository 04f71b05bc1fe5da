"""`forge-jobs jobs`: look at jobs and mend them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import click
import rich_click

from forge_jobs import limits
from forge_jobs.cli import output
from forge_jobs.cli.errors import FAILURE, Failure, Usage
from forge_jobs.cli.job_filter import filter_options
from forge_jobs.cli.lazy_group import Command, Group
from forge_jobs.cli.output import Column
from forge_jobs.cli.parameters import global_options, json_option, list_options, yes_option
from forge_jobs.cli.settings import Settings
from forge_jobs.cli.store import actor, run
from forge_jobs.ids import JobId, parse_id
from forge_jobs.storage.error import InvalidInput
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import (
    CancelOutcome,
    DeleteOutcome,
    NotRetryable,
    Retried,
    SlotHeld,
)
from forge_jobs.storage.types.event import JobEvent
from forge_jobs.storage.types.job import JobDetail, JobFilter, Page
from forge_jobs.storage.types.log import LogLine
from forge_jobs.view import job as job_view

IDS_PER_COMMAND: Final = 1_000
_OWN_PARTS: Final = frozenset({"payload", "payload_preview", "history", "timeline", "traceback", "log"})


@rich_click.group(
    cls=Group,
    lazy={
        "tail": ("forge_jobs.cli.jobs_tail:tail", "Follow events and log lines."),
        "explain": ("forge_jobs.cli.explain:explain_job", "Say why a job does not run."),
        "export": ("forge_jobs.cli.jobs_export:export", "Write jobs as JSON lines or CSV."),
    },
)
def jobs() -> None:
    """List, show, explain, retry, cancel, delete, follow and export jobs.

    \b
    Example:
      forge-jobs jobs list --status dead --since 2h
      forge-jobs jobs retry --kind mail --dead-reason exhausted
    """


@jobs.command("list", cls=Command)
@filter_options
@rich_click.option(
    "--limit", type=click.IntRange(1, limits.PAGE), default=50, show_default=True, help="At most this many."
)
@rich_click.option("--cursor", metavar="CURSOR", help="Go on where the page before ended.")
@list_options
@global_options
@click.pass_context
def list_(ctx: click.Context, chosen: JobFilter, limit: int, cursor: str | None, as_json: bool, as_jsonl: bool) -> None:
    """List jobs, newest enqueued first.

    \b
    Example:
      forge-jobs jobs list --status dead --status failed --queue mail
      forge-jobs jobs list --search a@example.org --json
    """

    async def work(storage: Storage, settings: Settings) -> Page:
        return await storage.jobs.list_jobs(chosen, limit=limit, cursor=cursor)

    page = run(ctx, work)
    if as_json:
        output.document(job_view.job_page(page))
        return
    if as_jsonl:
        output.json_lines(job_view.job_row(job) for job in page.items)
    else:
        output.table(
            [
                Column("id"),
                Column("queue"),
                Column("kind"),
                Column("status"),
                Column("attempts", right=True),
                Column("scheduled"),
                Column("error or payload", brief=True),
            ],
            [
                (
                    job.id,
                    job.queue,
                    job.kind,
                    job.status,
                    f"{job.attempts}/{job.max_attempts}",
                    job.scheduled_at,
                    job_view.job_row(job)["last_error"] or job_view.preview(job.payload_text),
                )
                for job in page.items
            ],
        )
    total = page.total if page.total is not None else f"at least {page.total_at_least}"
    output.say(f"{len(page.items)} of {total} jobs")
    if page.next_cursor is not None:
        output.say(f"more: --cursor {page.next_cursor}")


@jobs.command("show", cls=Command)
@rich_click.argument("id")
@rich_click.option("--stack", is_flag=True, help="Only where its handler is at this moment, if the job runs.")
@json_option
@global_options
@click.pass_context
def show(ctx: click.Context, id: str, stack: bool, as_json: bool) -> None:
    """Show everything about one job: its fields, payload, errors, events and log.

    With --stack its worker is asked where the handler is. The answer, without values, is kept in the job's log as well.

    \b
    Example:
      forge-jobs jobs show 01JH3V7M8Q2X4N5P6R7S8T9VWX
      forge-jobs jobs show 01JH3V7M8Q2X4N5P6R7S8T9VWX --stack
    """
    if stack:
        _show_stack(ctx, id, as_json)
        return

    async def work(storage: Storage, settings: Settings) -> tuple[JobDetail, list[JobEvent], list[LogLine]]:
        detail = await storage.jobs.get(JobId(id))
        if detail is None:
            raise _no_job(id)
        job_id = detail.row.id
        return detail, await storage.events.of_job(job_id), await storage.logs.of_job(job_id)

    detail, timeline, log = run(ctx, work)
    if as_json:
        output.document(job_view.job_detail(detail, timeline, log))
    else:
        _show(detail, timeline, log)


def _show_stack(ctx: click.Context, id: str, as_json: bool) -> None:
    from forge_jobs.cli import jobs_stack

    async def work(storage: Storage, settings: Settings) -> list[LogLine]:
        detail = await storage.jobs.get(JobId(id))
        if detail is None:
            raise _no_job(id)
        return await jobs_stack.ask(storage, detail.row.id)

    lines = run(ctx, work)
    if as_json:
        output.document(jobs_stack.as_json(lines))
    else:
        jobs_stack.show(lines)


def _show(detail: JobDetail, timeline: list[JobEvent], log: list[LogLine]) -> None:
    shown = job_view.job_detail(detail, timeline)
    plain = [key for key in shown if key not in _OWN_PARTS]
    output.fields((key, _field(shown[key])) for key in plain if shown[key] is not None and shown[key] != [])
    output.heading("payload")
    output.raw(output.json_text(shown["payload"], indent=2) + "\n")
    if detail.history:
        output.heading("errors, oldest first")
        output.table(
            [Column("at"), Column("attempt", right=True), Column("what"), Column("message", wide=True)],
            [(e["at"], e["attempt"], e["kind_of_error"], e["message"]) for e in shown["history"]],
        )
    if timeline:
        output.heading("timeline")
        output.table(
            [Column("at"), Column("event"), Column("attempt", right=True), Column("cause"), Column("took", right=True)],
            [(job_view.event(e)["at"], e.type, e.attempt, e.cause, job_view.duration(e)) for e in timeline],
        )
    if shown["traceback"]:
        output.heading("traceback of the newest error")
        output.fields([("", shown["traceback"])])
    if log:
        output.heading("log")
        for one in log:
            for text in job_view.log_text(one):
                output.line(text)


def _field(value: Any) -> Any:
    if isinstance(value, dict):  # progress
        total = "" if value["total"] is None else f" of {value['total']:g}"
        message = f", {value['message']}" if value["message"] else ""
        return f"{value['current']:g}{total}{message}, at {output.cell(value['at'])}"
    return value


# Mending


def _act_command(name: str, action: str, help: str) -> Command:
    """One of the verbs that act on ids, or on the jobs that a filter chooses."""

    @filter_options
    @rich_click.argument("ids", nargs=-1)
    @rich_click.option("--limit", type=click.IntRange(1), help="Act on at most this many of the chosen jobs.")
    @yes_option
    @json_option
    @global_options
    @click.pass_context
    def act(
        ctx: click.Context, ids: tuple[str, ...], chosen: JobFilter, limit: int | None, yes: bool, as_json: bool
    ) -> None:
        verb = name.replace("-", " ")
        if bool(ids) != chosen.is_everything:
            wrong = "give job ids or a filter, not both" if ids else "give job ids, or a filter such as --status dead"
            raise Usage(f"jobs {name}: {wrong}")
        if ids:
            report = _act_on_ids(ctx, action, ids)
        else:
            if not yes and not output.may_ask():
                raise Usage(
                    f"jobs {name} by filter asks first, and nobody is there to answer",
                    "give --yes; `forge-jobs jobs list` with the same filter shows what it would touch",
                )
            report = _act_on_filter(ctx, action, verb, chosen, limit, yes)
        if as_json:
            output.document(report)
        else:
            _tell(name, report)
        if ids and report["changed"] < len(ids):
            ctx.exit(FAILURE)

    act.__doc__ = help
    return rich_click.command(name, cls=Command)(act)


def _act_on_ids(ctx: click.Context, action: str, ids: tuple[str, ...]) -> dict[str, Any]:
    if len(ids) > IDS_PER_COMMAND:
        raise Usage(f"{len(ids)} ids in one command; the limit is {IDS_PER_COMMAND}. Use a filter, or several commands")

    async def work(storage: Storage, settings: Settings) -> list[dict[str, Any]]:
        return [await _act_on_one(storage, action, id) for id in dict.fromkeys(ids)]

    items = run(ctx, work)
    skipped = Counter(item["outcome"] for item in items if not item["changed"])
    return {"changed": sum(item["changed"] for item in items), "skipped": dict(skipped), "items": items}


async def _act_on_one(storage: Storage, action: str, text: str) -> dict[str, Any]:
    """What became of one job, in the words of a bulk act."""
    try:
        job_id = parse_id(text)
    except InvalidInput:
        return {"id": text, "changed": False, "outcome": "not_found"}
    changed, outcome, more = False, "not_found", {}
    match action:
        case "retry":
            match await storage.jobs.retry(job_id, actor=actor()):
                case Retried():
                    changed, outcome = True, "retried"
                case SlotHeld(holder=holder):
                    outcome, more = "slot_held", {"held_by": holder}
                case NotRetryable(status=status):
                    outcome = f"is_{status}" if status else "not_found"
        case "cancel":
            cancelled = await storage.jobs.cancel(job_id, actor=actor())
            outcome, changed = cancelled.value, cancelled in (CancelOutcome.CANCELLED, CancelOutcome.CANCEL_REQUESTED)
        case "delete":
            deleted = await storage.jobs.delete(job_id, actor=actor())
            outcome, changed = deleted.value, deleted is not DeleteOutcome.NOT_FOUND
        case "run_now":
            changed = await storage.jobs.run_now(job_id, actor=actor())
            found = changed or await storage.jobs.get(job_id) is not None
            outcome = "due" if changed else "not_pending" if found else "not_found"
    return {"id": job_id, "changed": changed, "outcome": outcome, **more}


def _act_on_filter(
    ctx: click.Context, action: str, verb: str, chosen: JobFilter, limit: int | None, yes: bool
) -> dict[str, Any]:
    if chosen.until is None:  # what comes after the question is not touched
        chosen = replace(chosen, until=datetime.now(UTC))

    async def count(storage: Storage, settings: Settings) -> dict[str, int]:
        return await storage.jobs.count(chosen)

    async def work(storage: Storage, settings: Settings) -> dict[str, Any]:
        report = await storage.jobs.act_on(action, chosen, limit=limit, actor=actor())
        return {"changed": report.changed, "skipped": report.skipped}

    by_status = run(ctx, count)
    total = sum(by_status.values())
    split = ", ".join(f"{n} {status}" for status, n in sorted(by_status.items()))
    output.say(f"{_jobs(total)} match{'es' if total == 1 else ''}" + (f" ({split})" if total else ""))
    if total == 0:
        return {"changed": 0, "skipped": {}}
    if not yes:
        asked = f"{verb} " + ("it" if total == 1 else f"at most {limit} of them" if limit else "them")
        click.confirm(f"{asked[0].upper()}{asked[1:]}?", abort=True, err=True)
    return run(ctx, work)


def _tell(name: str, report: dict[str, Any]) -> None:
    for item in report.get("items", ()):
        held = f" by {item['held_by']}" if "held_by" in item else ""
        output.line(f"{item['outcome']} {item['id']}{held}")
        if item["outcome"] == "cancel_requested" and name == "delete":
            output.say(f"job {item['id']} is running: it was asked to stop; delete it again once it is dead")
    if "items" not in report:
        output.line(f"{_DONE[name]} {report['changed']}")
        for reason, count in sorted(report["skipped"].items()):
            output.line(f"skipped {count} {reason}")


_DONE: Final = {"retry": "retried", "cancel": "cancelled", "delete": "deleted", "run-now": "due"}


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


retry = _act_command(
    "retry",
    "retry",
    """Make failed and dead jobs pending again, with a fresh budget of attempts.

    \b
    Example:
      forge-jobs jobs retry 01JH3V7M8Q2X4N5P6R7S8T9VWX
      forge-jobs jobs retry --status dead --kind mail --since 2h
    """,
)
cancel = _act_command(
    "cancel",
    "cancel",
    """End waiting jobs, and ask running ones to stop.

    \b
    Example:
      forge-jobs jobs cancel 01JH3V7M8Q2X4N5P6R7S8T9VWX
      forge-jobs jobs cancel --queue mail --status pending --yes
    """,
)
delete = _act_command(
    "delete",
    "delete",
    """Remove jobs with their history. Running ones are asked to stop instead, and stay until a second delete.

    \b
    Example:
      forge-jobs jobs delete 01JH3V7M8Q2X4N5P6R7S8T9VWX
      forge-jobs jobs delete --status done --until 7d --yes
    """,
)
run_now = _act_command(
    "run-now",
    "run_now",
    """Make pending jobs that wait for a later time due now.

    \b
    Example:
      forge-jobs jobs run-now 01JH3V7M8Q2X4N5P6R7S8T9VWX
      forge-jobs jobs run-now --queue mail --yes
    """,
)
for _command in (retry, cancel, delete, run_now):
    jobs.add_command(_command)


def _no_job(id: str) -> Failure:
    try:
        parse_id(id)
    except InvalidInput as error:
        return Failure(f"there is no job {id!r}: {error}")
    return Failure(f"there is no job {id}", "`forge-jobs jobs list` shows the newest ones")
