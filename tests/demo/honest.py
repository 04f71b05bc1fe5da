"""The facts of a run of the demo in which everything went as it should: tests doctor them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from forge_jobs.demo.corpus import Fate, Measures
from forge_jobs.demo.facts import ExpectedFile, Facts, Happenings, JobFact, Mishap, Run
from forge_jobs.demo.jobs import FILE, LIST, MODULE
from forge_jobs.demo.results import Result
from forge_jobs.demo.upstream import Answered

START = datetime(2026, 1, 1, tzinfo=UTC)
MEASURES = Measures(lines=10, functions=2, imports=("json", "os"))


def expected(path: str, fate: Fate = Fate.PLAIN) -> ExpectedFile:
    return ExpectedFile(path=path, fate=fate, measures=MEASURES)


def job(id: str, kind: str, item: str = "", **changes: object) -> JobFact:
    fact = JobFact(
        id=id,
        kind=kind,
        item=item,
        status="done",
        dead_reason=None,
        attempts=1,
        crashes=0,
        fence=1,
        mishaps=(),
        releases=0,
        enqueued_at=START,
        started_at=START + timedelta(seconds=1),
        completed_at=START + timedelta(seconds=2),
    )
    return replace(fact, **changes)  # type: ignore[arg-type]


def answered(
    job_id: str, path: str, status: int = 200, *, fence: int = 1, page: int = 0, stranger: bool = False
) -> Answered:
    return Answered(
        at=0.0, path=path, page=page, status=status, job_id=job_id, fence=fence, attempt=1, stranger=stranger
    )


def counted(job_id: str, path: str, fence: int = 1) -> Result:
    found = {"lines": 10, "functions": 2, "imports": ["json", "os"]}
    return Result(job_id=job_id, kind=FILE, item=path, found=found, attempt=1, fence=fence)


def located(job_id: str, module: str) -> Result:
    return Result(job_id=job_id, kind=MODULE, item=module, found={"origin": None}, attempt=1, fence=1)


def mishap(fence: int, kind_of_error: str) -> Mishap:
    return Mishap(fence=fence, kind_of_error=kind_of_error)


HONEST = Facts(
    finished=True,
    took=timedelta(seconds=20),
    files=(
        expected("plain.py"),
        expected("gone.py", Fate.GONE),
        expected("flaky.py", Fate.FLAKY),
        expected("crashed.py", Fate.SLOW),
        expected("released.py", Fate.SLOW),
    ),
    jobs=(
        job("L", LIST),
        job("plain", FILE, "plain.py", fence=2),
        job("gone", FILE, "gone.py", status="dead", dead_reason="rejected", mishaps=(mishap(1, "dead"),)),
        job("flaky", FILE, "flaky.py", attempts=2, fence=2, mishaps=(mishap(1, "failed"),)),
        job("crashed", FILE, "crashed.py", attempts=2, crashes=1, fence=3, mishaps=(mishap(1, "lost_worker"),)),
        job("released", FILE, "released.py", fence=2, releases=1),
        job("m1", MODULE, "json"),
        job("m2", MODULE, "os"),
    ),
    answers=(
        answered("L", "", page=1),
        answered("plain", "plain.py", 429, stranger=True),
        answered("plain", "plain.py", fence=2),
        answered("gone", "gone.py", 404),
        answered("flaky", "flaky.py", 500),
        answered("flaky", "flaky.py", fence=2),
        answered("crashed", "crashed.py"),
        answered("crashed", "crashed.py", fence=3),
        answered("released", "released.py"),
        answered("released", "released.py", fence=2),
    ),
    results=(
        counted("plain", "plain.py", 2),
        counted("flaky", "flaky.py", 2),
        counted("crashed", "crashed.py", 3),
        counted("released", "released.py", 2),
        located("m1", "json"),
        located("m2", "os"),
    ),
    happenings=Happenings(
        orphans=(Run(job_id="crashed", fence=1),),
        interrupted=(Run(job_id="released", fence=1),),
        exits=(("worker-2", -9), ("worker-1", 0), ("worker-3", 0), ("worker-1", 0)),
    ),
)
