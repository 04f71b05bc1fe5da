"""Logs of jobs: many runs in one transaction, each under its fence, and never more of a job than its bound."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from forge_jobs import limits
from forge_jobs.clock import to_us
from forge_jobs.ids import JobId
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.driver import Driver, Tx
from forge_jobs.storage.sql.rows import to_json
from forge_jobs.storage.types.log import LINES_OF_A_RUN, LogLine, RunLog, to_trim

FENCES_OF_JOBS = statement("fences_of_jobs")
INSERT_LOG_LINE = statement("insert_log_line")
LOG_SIZES = statement("log_sizes")
TRIM_LOG = statement("trim_log")
COUNT_SKIPPED_LINES = statement("count_skipped_lines")
LOG_OF_JOB = statement("log_of_job")
LOG_BETWEEN = statement("log_between")
JOBS_BY_IDS = statement("jobs_by_ids")

CHUNK: Final = 500
"""Lines in one transaction, give or take one run's: others wait no longer than for that."""


class SqlLogs:
    """Implements `LogStore`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def append(self, runs: Sequence[RunLog]) -> set[JobId]:
        held: set[JobId] = set()
        for chunk in _chunks(runs):
            held |= await self._driver.write(lambda tx, chunk=chunk: _append(tx, chunk), label="log")  # type: ignore[misc]
        return held

    async def of_job(self, job_id: JobId, *, after: int = 0, limit: int = limits.LOG_LINES) -> list[LogLine]:
        params = {"id": job_id, "seq": after, "limit": limit}
        return await self._driver.read(lambda tx: [LogLine(*row) for row in tx.rows(LOG_OF_JOB, params)])

    async def between(self, since: datetime, until: datetime, *, limit: int = 1_000) -> list[LogLine]:
        params = {"since": to_us(since), "until": to_us(until), "limit": limit}
        return await self._driver.read(lambda tx: [LogLine(*row) for row in tx.rows(LOG_BETWEEN, params)])


def _chunks(runs: Sequence[RunLog]) -> list[list[RunLog]]:
    chunks: list[list[RunLog]] = []
    room = 0
    for run in runs:
        if room <= 0:
            chunks.append([])
            room = CHUNK
        chunks[-1].append(run)
        room -= len(run.lines)
    return chunks


def _append(tx: Tx, runs: Sequence[RunLog]) -> set[JobId]:
    """Insert what is true; the jobs that another transaction has at the moment."""
    ids = to_json([run.job_id for run in runs])
    fences: dict[str, int] = dict(tx.rows(FENCES_OF_JOBS, {"ids": ids}))
    mine = [run for run in runs if run.job_id in fences and (run.ended or fences[run.job_id] == run.fence)]
    if mine:
        tx.change_many(INSERT_LOG_LINE, [row for run in mine for row in _rows(run)])
    for run in mine:
        if run.fence > 1 or run.lines[-1].number > limits.LOG_LINES or _size(run) > limits.LOG_BYTES:
            _trim(tx, run.job_id)
    if len(fences) == len({run.job_id for run in runs}):
        return set()
    return {JobId(row[0]) for row in tx.rows(JOBS_BY_IDS, {"ids": ids}) if row[0] not in fences}


def _trim(tx: Tx, job_id: JobId) -> None:
    cut = to_trim([tuple(row) for row in tx.rows(LOG_SIZES, {"id": job_id})], limits.LOG_LINES, limits.LOG_BYTES)
    if cut is not None:
        oldest, gone = cut
        tx.change(TRIM_LOG, {"id": job_id, "seq": oldest})
        tx.change(COUNT_SKIPPED_LINES, {"id": job_id, "seq": oldest, "count": gone})


def _size(run: RunLog) -> int:
    """The most that this run can have written so far: no line is larger than its own bound."""
    return run.lines[-1].number * limits.LOG_LINE_BYTES


def _rows(run: RunLog) -> list[tuple[Any, ...]]:
    return [
        (
            run.job_id,
            run.fence * LINES_OF_A_RUN + line.number,
            line.at_us,
            run.attempt,
            run.fence,
            line.level,
            line.logger,
            line.message,
            line.size,
            line.skipped,
        )
        for line in run.lines
    ]
