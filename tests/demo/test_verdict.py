"""The final check of the demo holds for an honest run, and each claim fails when the facts speak against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs.demo.facts import Facts, Happenings, Run
from forge_jobs.demo.jobs import FILE, LIST, MODULE
from forge_jobs.demo.verdict import judge

from .honest import HONEST, answered, counted, job, located, mishap


def failing(facts: Facts) -> list[str]:
    return [check.claim for check in judge(facts) if not check.holds]


def with_job(id: str, **changes: object) -> Facts:
    jobs = tuple(replace(j, **changes) if j.id == id else j for j in HONEST.jobs)  # type: ignore[arg-type]
    return replace(HONEST, jobs=jobs)


def with_happenings(**changes: object) -> Facts:
    return replace(HONEST, happenings=replace(HONEST.happenings, **changes))  # type: ignore[arg-type]


def without(**rows: Callable[[Any], bool]) -> Facts:
    """The honest facts less the jobs, answers or results that these predicates pick."""
    left: dict[str, Any] = {
        name: tuple(row for row in getattr(HONEST, name) if not picked(row)) for name, picked in rows.items()
    }
    return replace(HONEST, **left)


def plus(**rows: object) -> Facts:
    more: dict[str, Any] = {name: (*getattr(HONEST, name), row) for name, row in rows.items()}
    return replace(HONEST, **more)


def test_an_honest_run_passes_every_check() -> None:
    assert failing(HONEST) == []


DOCTORED: list[tuple[str, str, Callable[[], Facts]]] = [
    ("a job that still waits", "came to its end", lambda: with_job("plain", status="failed")),
    ("a job that still runs", "came to its end", lambda: with_job("m1", status="in_progress")),
    ("a run that was cut short", "came to its end", lambda: replace(HONEST, finished=False)),
    ("a listing that never ended", "last page", lambda: with_job("L", status="dead", dead_reason="exhausted")),
    ("a second listing", "last page", lambda: plus(jobs=job("L2", LIST))),
    ("a file never asked for", "last page", lambda: without(answers=lambda a: a.path == "plain.py")),
    ("a page never read", "last page", lambda: without(answers=lambda a: a.page == 1)),
    ("a file without a job", "exactly one job", lambda: without(jobs=lambda j: j.id == "plain")),
    ("a file with two jobs", "exactly one job", lambda: plus(jobs=job("again", FILE, "plain.py"))),
    ("a job for no file", "exactly one job", lambda: plus(jobs=job("stray", FILE, "stray.py"))),
    ("a job done by a run that was served nothing", "ended done", lambda: with_job("plain", fence=3)),
    ("a good file that died", "ended done", lambda: with_job("plain", status="dead", dead_reason="exhausted")),
    ("a gone file that is done", "404", lambda: with_job("gone", status="done", dead_reason=None)),
    ("a gone file dead for another reason", "404", lambda: with_job("gone", dead_reason="exhausted")),
    ("a gone file that was served", "404", lambda: plus(answers=answered("gone", "gone.py"))),
    ("a gone file with a result", "404", lambda: plus(results=counted("gone", "gone.py"))),
    ("a follow-up that died", "404", lambda: with_job("m1", status="dead", dead_reason="crashed")),
    ("a missing result", "exactly one result", lambda: without(results=lambda r: r.job_id == "plain")),
    ("a second result", "exactly one result", lambda: plus(results=counted("other", "plain.py", 2))),
    ("a result by a late run", "exactly one result", lambda: with_job("plain", fence=3)),
    (
        "a result that nobody was served",
        "exactly one result",
        lambda: without(answers=lambda a: a.path == "plain.py" and a.status == 200),
    ),
    (
        "a wrong result",
        "exactly one result",
        lambda: replace(HONEST, results=(replace(HONEST.results[0], found={"lines": 9}), *HONEST.results[1:])),
    ),
    ("a missing follow-up", "exactly one follow-up", lambda: without(jobs=lambda j: j.id == "m1")),
    ("a doubled follow-up", "exactly one follow-up", lambda: plus(jobs=job("m3", MODULE, "json"))),
    ("a follow-up for no import", "exactly one follow-up", lambda: plus(jobs=job("m3", MODULE, "abc"))),
    ("a follow-up without result", "exactly one follow-up", lambda: without(results=lambda r: r.item == "os")),
    ("a follow-up with two results", "exactly one follow-up", lambda: plus(results=located("m9", "os"))),
    ("a flaky file that never failed", "500", lambda: without(answers=lambda a: a.status == 500)),
    ("a flaky file that failed twice", "500", lambda: plus(answers=answered("flaky", "flaky.py", 500, fence=9))),
    ("a failure that left no trace", "500", lambda: with_job("flaky", mishaps=())),
    ("a request over the budget", "never exceeded", lambda: plus(answers=answered("plain", "plain.py", 429))),
    ("a stranger nobody met", "another client", lambda: without(answers=lambda a: a.status == 429)),
    (
        "a refused job that vanished",
        "another client",
        lambda: plus(answers=answered("nobody", "plain.py", 429, stranger=True)),
    ),
    ("a throttle that burnt an attempt", "attempts add up", lambda: with_job("plain", attempts=2)),
    ("a release that burnt an attempt", "attempts add up", lambda: with_job("released", attempts=2)),
    ("a crash that burnt none", "attempts add up", lambda: with_job("crashed", attempts=1)),
    ("a kill that hit nothing", "SIGKILL", lambda: with_happenings(orphans=())),
    ("an orphan that nobody recovered", "SIGKILL", lambda: with_job("crashed", mishaps=(mishap(1, "failed"),))),
    (
        "an orphan that vanished",
        "SIGKILL",
        lambda: with_happenings(orphans=(Run(job_id="vanished", fence=1),)),
    ),
    ("a stop that interrupted nothing", "SIGTERM", lambda: with_happenings(interrupted=())),
    ("an interrupted job that vanished", "SIGTERM", lambda: without(jobs=lambda j: j.id == "released")),
    (
        "a stop that left a job to the reaper",
        "SIGTERM",
        lambda: with_job("released", mishaps=(mishap(1, "lost_worker"),)),
    ),
    ("a run that asked twice", "served twice", lambda: plus(answers=answered("plain", "plain.py", fence=2))),
    ("a job served twice for no reason", "served twice", lambda: plus(answers=answered("plain", "plain.py", fence=7))),
    ("a second service without a release", "served twice", lambda: with_job("released", releases=0)),
    ("a fetch by an unknown job", "served twice", lambda: plus(answers=answered("nobody", "plain.py"))),
    ("a worker that failed", "ended cleanly", lambda: with_happenings(exits=(*HONEST.happenings.exits[:3], ("w", 1)))),
    ("no worker killed", "ended cleanly", lambda: with_happenings(exits=(("w", 0),) * 4)),
    ("a worker too few", "ended cleanly", lambda: with_happenings(exits=HONEST.happenings.exits[:3])),
    ("two workers killed", "ended cleanly", lambda: with_happenings(exits=(*HONEST.happenings.exits[:3], ("w", -9)))),
]


@pytest.mark.parametrize(("claim", "doctored"), [case[1:] for case in DOCTORED], ids=[case[0] for case in DOCTORED])
def test_the_check_notices(claim: str, doctored: Callable[[], Facts]) -> None:
    assert [failed for failed in failing(doctored()) if claim in failed]


def test_nothing_at_all_passes_no_check_by_accident() -> None:
    nothing = Facts(
        finished=False, files=(), answers=(), results=(), jobs=(), happenings=Happenings(), took=timedelta(0)
    )
    assert [check.claim for check in judge(nothing) if check.holds] == []


def test_offenders_are_named_but_not_all_of_them() -> None:
    strays = tuple(job(f"stray-{n}", FILE, f"stray-{n}.py") for n in range(5))
    checks = judge(replace(HONEST, jobs=HONEST.jobs + strays))
    numbers = next(check.numbers for check in checks if "exactly one job" in check.claim)
    assert "not stray-0.py, stray-1.py, stray-2.py and 2 more" in numbers
