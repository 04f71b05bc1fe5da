"""`forge-jobs jobs show --stack`: ask the worker of a job where its handler is, and wait for the answer."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from forge_jobs.cli import output
from forge_jobs.cli.errors import Failure
from forge_jobs.ids import JobId
from forge_jobs.storage.protocol import STACK, Storage
from forge_jobs.storage.types.job import JobStatus
from forge_jobs.storage.types.log import STACK_LOGGER, LogLine
from forge_jobs.view import job as job_view

PATIENCE_S: Final = 6.0
ASK_AGAIN_S: Final = 2.5
"""A question may be lost; a worker that answers does so within a second."""
LOOK_S: Final = 0.1


async def ask(storage: Storage, job_id: JobId) -> list[LogLine]:
    """The frames of the handler, outermost first, after a line that says where it runs.

    Raises:
        Failure: the job does not run, or nobody answers.
    """
    loop = asyncio.get_running_loop()
    last = max((line.seq for line in await storage.logs.of_job(job_id)), default=0)
    ask_at, until = loop.time(), loop.time() + PATIENCE_S
    while True:
        await _check_running(storage, job_id)
        if loop.time() >= ask_at:
            storage.wake([STACK, f"{STACK}/{job_id}"])
            ask_at += ASK_AGAIN_S
        lines = [line for line in await storage.logs.of_job(job_id, after=last) if line.logger == STACK_LOGGER]
        if lines:
            return _first_answer(lines)
        if loop.time() >= until:
            raise Failure(
                f"the worker of job {job_id} did not say where its handler is within {PATIENCE_S:g} s",
                "a handler that blocks the event loop keeps its worker from answering (its log says loop_lag), and so "
                "does foreign code that holds a child's interpreter; a worker that hears no wakes is not asked",
            )
        await asyncio.sleep(LOOK_S)


def show(lines: list[LogLine]) -> None:
    """For people."""
    head, *frames = lines
    output.heading(head.message)
    for frame in frames:
        output.line(frame.message)


def as_json(lines: list[LogLine]) -> dict[str, Any]:
    """For programs."""
    head, *frames = lines
    return {
        "job_id": head.job_id,
        "at": job_view.log_line(head)["at"],
        "attempt": head.attempt,
        "where": head.message.removeprefix("stack of its handler ").removesuffix(", outermost first:"),
        "frames": [frame.message for frame in frames],
    }


async def _check_running(storage: Storage, job_id: JobId) -> None:
    detail = await storage.jobs.get(job_id)
    if detail is None:
        raise Failure(f"job {job_id} is gone: it was deleted meanwhile")
    if detail.row.status != JobStatus.IN_PROGRESS:
        raise Failure(f"job {job_id} is {detail.row.status}: no handler of it runs")


def _first_answer(lines: list[LogLine]) -> list[LogLine]:
    """The lines of one sample, of those of several."""
    second = next((n for n, line in enumerate(lines) if n and line.message.startswith("stack of its handler ")), None)
    return lines[:second]
