"""The end of the demo: a table of what each kind of job went through, and the list of checks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forge_jobs.demo.facts import Facts, JobFact
from forge_jobs.demo.jobs import KINDS
from forge_jobs.demo.verdict import Check
from forge_jobs.storage.types.job import ErrorKind, JobStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSummary:
    """What the jobs of one kind went through.

    `dead` is by reason. `throttled` counts answers of 429, `retried` failed runs, `recovered` jobs that a crashed
    worker was running. Latency is from the enqueue to the end, run from the start of the last run; null without jobs.
    """

    kind: str
    jobs: int
    done: int
    dead: dict[str, int]
    throttled: int
    retried: int
    recovered: int
    per_second: float
    latency_p50_s: float | None
    latency_p99_s: float | None
    run_p50_s: float | None
    run_p99_s: float | None


def summarise(facts: Facts) -> list[KindSummary]:
    """One summary for each kind of the demo."""
    refused = Counter(answer.job_id for answer in facts.answers if answer.status == 429)
    return [_summary(kind, facts.of_kind(kind), refused) for kind in KINDS]


def print_report(console: Console, facts: Facts, checks: Sequence[Check]) -> None:
    """The table, the checks, and one line that says it all."""
    console.print(_table(summarise(facts), fancy=console.is_terminal))
    for check in checks:
        yes, no = ("✓", "✗") if console.encoding.startswith("utf") else ("ok", "FAIL")
        mark = (yes, "green") if check.holds else (no, "bold red")
        console.print(
            Text.assemble(mark, f" {check.claim}: ", (check.numbers, "dim")), soft_wrap=not console.is_terminal
        )
    held = sum(check.holds for check in checks)
    took = f"{facts.took.total_seconds():.1f} s"
    if held == len(checks):
        console.print(Text(f"All {held} checks hold, after {took}.", style="bold green"))
    else:
        console.print(
            Text(f"{len(checks) - held} of {len(checks)} checks do not hold, after {took}.", style="bold red")
        )


def report_document(facts: Facts, checks: Sequence[Check]) -> dict[str, Any]:
    """The same as one document."""
    return {
        "ok": all(check.holds for check in checks),
        "took_s": round(facts.took.total_seconds(), 3),
        "kinds": [asdict(summary) for summary in summarise(facts)],
        "checks": [asdict(check) for check in checks],
    }


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _summary(kind: str, jobs: Sequence[JobFact], refused: Counter[str]) -> KindSummary:
    ended = [(job.enqueued_at, job.started_at, job.completed_at) for job in jobs]
    spans = [(enqueued, started, end) for enqueued, started, end in ended if started is not None and end is not None]
    latency = [_seconds(enqueued, end) for enqueued, _, end in spans]
    run = [_seconds(started, end) for _, started, end in spans]
    lasted = _seconds(min(span[0] for span in spans), max(span[2] for span in spans)) if spans else 0.0
    return KindSummary(
        kind=kind,
        jobs=len(jobs),
        done=sum(job.status == JobStatus.DONE for job in jobs),
        dead=dict(Counter(job.dead_reason or "unknown" for job in jobs if job.status == JobStatus.DEAD)),
        throttled=sum(refused[job.id] for job in jobs),
        retried=sum(mishap.kind_of_error == ErrorKind.FAILED for job in jobs for mishap in job.mishaps),
        recovered=sum(job.is_recovered and job.status in (JobStatus.DONE, JobStatus.DEAD) for job in jobs),
        per_second=len(spans) / lasted if lasted else 0.0,
        latency_p50_s=percentile(latency, 0.5),
        latency_p99_s=percentile(latency, 0.99),
        run_p50_s=percentile(run, 0.5),
        run_p99_s=percentile(run, 0.99),
    )


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def _table(summaries: Sequence[KindSummary], *, fancy: bool) -> Table:
    """A column for each kind: three columns fit a narrow terminal, nine do not."""
    table = Table(box=box.ROUNDED if fancy else box.ASCII)
    table.add_column("kind", no_wrap=True)
    for summary in summaries:
        table.add_column(summary.kind, justify="right", no_wrap=True)
    for name, cell in ROWS.items():
        table.add_row(name, *map(cell, summaries))
    return table


def _dead(summary: KindSummary) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(summary.dead.items())) or "0"


def _pair(p50: float | None, p99: float | None) -> str:
    return f"{_short(p50)} / {_short(p99)}"


def _short(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


ROWS: Final[dict[str, Callable[[KindSummary], str]]] = {
    "done": lambda kind: str(kind.done),
    "dead": _dead,
    "throttled (429)": lambda kind: str(kind.throttled),
    "retried": lambda kind: str(kind.retried),
    "recovered (crash)": lambda kind: str(kind.recovered),
    "jobs per second": lambda kind: f"{kind.per_second:.1f}",
    "latency p50 / p99": lambda kind: _pair(kind.latency_p50_s, kind.latency_p99_s),
    "last run p50 / p99": lambda kind: _pair(kind.run_p50_s, kind.run_p99_s),
}
