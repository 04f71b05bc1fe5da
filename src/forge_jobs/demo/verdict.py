"""The demo's final check: pure. From what was collected to a list of claims, each of which holds or does not.

The upstream's log, the user's own table, the queue's rows and the files on the disk are four accounts of the same run;
each claim holds one against another.
"""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from forge_jobs.demo.corpus import Fate
from forge_jobs.demo.facts import Facts, JobFact, Run
from forge_jobs.demo.jobs import FILE, LIST, MODULE
from forge_jobs.storage.types.job import DeadReason, ErrorKind, JobStatus

SHOWN: Final = 3
"""Offenders named in the line of a claim that does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A claim, whether it holds, and the numbers behind it."""

    claim: str
    holds: bool
    numbers: str


REPLACED: Final = 2
"""Workers started on the way: one for the killed one, and the stopped one again."""


def judge(facts: Facts) -> list[Check]:
    """Every claim the demo makes, in the order of the story."""
    return [
        _nothing_left(facts),
        _listed(facts),
        _one_job_per_file(facts),
        _done_unless_gone(facts),
        _gone_are_rejected(facts),
        _one_result_per_file(facts),
        _one_follow_up_per_module(facts),
        _flaky_were_retried(facts),
        _within_the_budget(facts),
        _throttled(facts),
        _attempts_add_up(facts),
        _recovered(facts),
        _handed_back(facts),
        _repeats_explained(facts),
        _clean_ends(facts),
    ]


def _nothing_left(facts: Facts) -> Check:
    left = Counter(job.status for job in facts.jobs if job.status not in (JobStatus.DONE, JobStatus.DEAD))
    what = ", ".join(f"{count} {status}" for status, count in sorted(left.items())) or "0 jobs left"
    late = "" if facts.finished else "; the time limit came first"
    return Check(
        claim="every job came to its end",
        holds=facts.finished and not left and bool(facts.jobs),
        numbers=f"{len(facts.jobs)} jobs, {what}{late}",
    )


def _listed(facts: Facts) -> Check:
    jobs = facts.of_kind(LIST)
    pages = {answer.page for answer in facts.answers if answer.page and answer.status == 200}
    asked = {answer.path for answer in facts.answers if answer.path}
    unknown = asked - {file.path for file in facts.files}
    missing = {file.path for file in facts.files} - asked
    ended = len(jobs) == 1 and jobs[0].status == JobStatus.DONE
    return Check(
        claim="the listing was read to its last page, and every file on it was asked for",
        holds=ended and not missing and not unknown and pages == set(range(1, len(pages) + 1)) and bool(pages),
        numbers=f"{len(pages)} pages, {len(asked)} of {len(facts.files)} files{_named(missing | unknown)}",
    )


def _one_job_per_file(facts: Facts) -> Check:
    jobs = Counter(job.item for job in facts.of_kind(FILE))
    expected = Counter(file.path for file in facts.files)
    return Check(
        claim="each file has exactly one job",
        holds=bool(expected) and jobs == expected,
        numbers=f"{jobs.total()} jobs for {len(expected)} files{_named((jobs - expected) + (expected - jobs))}",
    )


def _done_unless_gone(facts: Facts) -> Check:
    there = {file.path for file in facts.files if file.fate is not Fate.GONE}
    served = {(answer.job_id, answer.fence, answer.path) for answer in facts.answers if answer.status == 200}
    jobs = [job for job in facts.of_kind(FILE) if job.item in there]
    wrong = [job.item for job in jobs if job.status != JobStatus.DONE or (job.id, job.fence, job.item) not in served]
    return Check(
        claim="every file that the upstream has ended done, by a run that was served it",
        holds=bool(there) and len(jobs) == len(there) and not wrong,
        numbers=f"{len(jobs) - len(wrong)} of {len(there)}{_named(wrong)}",
    )


def _gone_are_rejected(facts: Facts) -> Check:
    gone = {file.path for file in facts.files if file.fate is Fate.GONE}
    rejected = {
        job.item
        for job in facts.of_kind(FILE)
        if job.item in gone and job.status == JobStatus.DEAD and job.dead_reason == DeadReason.REJECTED
    }
    dead = {job.item for job in facts.jobs if job.status == JobStatus.DEAD}
    served = {answer.path for answer in facts.answers if answer.path in gone and answer.status == 200}
    stored = {result.item for result in facts.results if result.item in gone}
    wrong = (gone ^ rejected) | (dead - gone) | served | stored
    return Check(
        claim="every file that is gone (404) ended dead, rejected; nothing else died",
        holds=bool(gone) and not wrong,
        numbers=f"{len(rejected)} of {len(gone)}, {len(dead)} dead in all{_named(wrong)}",
    )


def _one_result_per_file(facts: Facts) -> Check:
    measures = {file.path: file.measures for file in facts.files if file.fate is not Fate.GONE}
    jobs = {job.id: job for job in facts.of_kind(FILE)}
    rows = [result for result in facts.results if result.kind == FILE]
    served = {(answer.job_id, answer.fence, answer.path) for answer in facts.answers if answer.status == 200}
    wrong: set[str] = set()
    for row in rows:
        truth, job = measures.get(row.item), jobs.get(row.job_id)
        counted = truth is not None and (truth.lines, truth.functions, list(truth.imports)) == (
            row.found.get("lines"),
            row.found.get("functions"),
            row.found.get("imports"),
        )
        by_last_run = job is not None and (job.item, job.fence) == (row.item, row.fence)
        if not (counted and by_last_run and (row.job_id, row.fence, row.item) in served):
            wrong.add(row.item)
    amiss = wrong | set(_differ(Counter(row.item for row in rows), Counter(measures.keys())))
    return Check(
        claim="each has exactly one result, right to the file on the disk, by the run that finished its job",
        holds=bool(rows) and not amiss,
        numbers=f"{len(rows)} results, {sum(row.writes > 1 for row in rows)} written more than once{_named(amiss)}",
    )


def _one_follow_up_per_module(facts: Facts) -> Check:
    imports = [file.measures.imports for file in facts.files if file.fate is not Fate.GONE]
    expected = Counter({module for found in imports for module in found})
    jobs = facts.of_kind(MODULE)
    by_id = {job.id: job for job in jobs}
    done = Counter(job.item for job in jobs if job.status == JobStatus.DONE)
    rows = [result for result in facts.results if result.kind == MODULE]
    stray = {row.item for row in rows if row.job_id not in by_id or by_id[row.job_id].item != row.item}
    amiss = stray | set(_differ(done, expected)) | set(_differ(Counter(row.item for row in rows), expected))
    return Check(
        claim="each imported module has exactly one follow-up, done, with one result",
        holds=bool(expected) and len(jobs) == len(expected) and not amiss,
        numbers=f"{len(jobs)} jobs and {len(rows)} results for {len(expected)} modules, "
        f"out of {sum(map(len, imports))} imports{_named(amiss)}",
    )


def _flaky_were_retried(facts: Facts) -> Check:
    flaky = {file.path for file in facts.files if file.fate is Fate.FLAKY}
    failures = Counter(answer.path for answer in facts.answers if answer.status == 500)
    again = {
        job.item for job in facts.of_kind(FILE) if job.item in flaky and job.mishaps and job.status == JobStatus.DONE
    }
    amiss = set(_differ(failures, Counter(flaky))) | (flaky - again)
    return Check(
        claim="every file that failed the first time (500) was tried again and got through",
        holds=bool(flaky) and not amiss,
        numbers=f"{len(flaky & again)} of {len(flaky)}, {failures.total()} answers of 500{_named(amiss)}",
    )


def _within_the_budget(facts: Facts) -> Check:
    """The rate limit's promise, by the upstream's own account."""
    refused = [answer.job_id for answer in facts.answers if answer.status == 429 and not answer.stranger]
    return Check(
        claim="the workers together never exceeded the upstream's budget",
        holds=bool(facts.answers) and not refused,
        numbers=f"{len(refused)} of {len(facts.answers)} requests were over it{_named(refused)}",
    )


def _throttled(facts: Facts) -> Check:
    refused = [answer for answer in facts.answers if answer.status == 429]
    jobs = {answer.job_id for answer in refused}
    known = {job.id for job in facts.jobs if job.status in (JobStatus.DONE, JobStatus.DEAD)}
    return Check(
        claim="while another client had the budget, every job that was refused (429) came back later",
        holds=bool(refused) and jobs <= known,
        numbers=f"{len(refused)} refusals of {len(jobs)} jobs{_named(jobs - known)}",
    )


def _attempts_add_up(facts: Facts) -> Check:
    """A run counts if it failed or crashed, or was the last; a throttled or released one does not."""
    wrong = [job.id for job in facts.jobs if job.attempts != _counted_runs(job)]
    spent = sum(job.attempts for job in facts.jobs)
    failed = sum(mishap.kind_of_error == ErrorKind.FAILED for job in facts.jobs for mishap in job.mishaps)
    return Check(
        claim="attempts add up: throttles and shutdowns burnt none",
        holds=bool(facts.jobs) and not wrong,
        numbers=f"{spent} attempts = {len(facts.jobs)} last runs + {failed} failures + "
        f"{sum(job.crashes for job in facts.jobs)} crashes{_named(wrong)}",
    )


def _counted_runs(job: JobFact) -> int:
    return len(job.mishaps) + (1 if job.status == JobStatus.DONE else 0)


def _recovered(facts: Facts) -> Check:
    jobs = {job.id: job for job in facts.jobs}
    orphans = facts.happenings.orphans
    lost = [run.job_id for run in orphans if not _ended_as(jobs.get(run.job_id), run, ErrorKind.LOST_WORKER)]
    return Check(
        claim="every job that the killed worker (SIGKILL) was running was recovered by another",
        holds=bool(orphans) and not lost,
        numbers=f"{len(orphans) - len(lost)} of {len(orphans)}{_named(lost)}",
    )


def _ended_as(job: JobFact | None, run: Run, kind_of_error: str) -> bool:
    return job is not None and any((m.fence, m.kind_of_error) == (run.fence, kind_of_error) for m in job.mishaps)


def _handed_back(facts: Facts) -> Check:
    jobs = {job.id: job for job in facts.jobs}
    interrupted = facts.happenings.interrupted
    lost = [
        run.job_id
        for run in interrupted
        if run.job_id not in jobs or _ended_as(jobs[run.job_id], run, ErrorKind.LOST_WORKER)
    ]
    finished = sum(run.job_id in jobs and jobs[run.job_id].fence == run.fence for run in interrupted)
    released = sum(job.releases for job in facts.jobs)
    return Check(
        claim="the stopped worker (SIGTERM) finished jobs in its grace or handed them back; none was lost",
        holds=bool(interrupted) and not lost,
        numbers=f"{len(interrupted)} running: {finished} finished, {len(interrupted) - finished} went back; "
        f"runs released: {released}, with those not yet begun{_named(lost)}",
    )


def _repeats_explained(facts: Facts) -> Check:
    """A job is served twice only if its earlier run crashed, failed after the answer, or was handed back."""
    jobs = {job.id: job for job in facts.of_kind(FILE)}
    served: dict[str, list[int]] = defaultdict(list)
    asked: Counter[tuple[str, int]] = Counter()
    for answer in facts.answers:
        if answer.path:
            asked[answer.job_id, answer.fence] += 1
            if answer.status == 200:
                served[answer.job_id].append(answer.fence)
    unexplained = [job_id for (job_id, _), count in asked.items() if count > 1 or job_id not in jobs]
    again = 0
    for job_id, fences in served.items():
        job = jobs.get(job_id)
        again += len(fences) - 1
        if job is not None and not _explained(job, fences):
            unexplained.append(job_id)
    return Check(
        claim="no run asked twice, and a file served twice is explained by a crash or a shutdown on record",
        holds=bool(served) and not unexplained,
        numbers=f"{len(served)} files served, {again} of them again{_named(unexplained)}",
    )


def _explained(job: JobFact, fences: Sequence[int]) -> bool:
    on_record = {mishap.fence for mishap in job.mishaps}
    earlier = [fence for fence in fences if fence != job.fence and fence not in on_record]
    return len(earlier) <= job.releases


def _clean_ends(facts: Facts) -> Check:
    exits = facts.happenings.exits
    killed = [name for name, status in exits if status == -signal.SIGKILL]
    unclean = [name for name, status in exits if status not in (0, -signal.SIGKILL)]
    return Check(
        claim="one worker was killed, the others ended cleanly",
        holds=len(killed) == 1 and len(exits) == facts.happenings.begun + REPLACED and not unclean,
        numbers=", ".join(f"{name}: exit {status}" for name, status in exits),
    )


def _differ(one: Counter[str], other: Counter[str]) -> Iterable[str]:
    return ((one - other) + (other - one)).keys()


def _named(offenders: Iterable[str]) -> str:
    names = sorted(set(offenders))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f": not {', '.join(names[:SHOWN])}{more}" if names else ""
