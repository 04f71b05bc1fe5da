"""Answers to the question where a running handler is.

Who asks is in another process, so the answer is in the job's log. The question is a wake, which may be lost, and which
an event loop that is blocked does not hear.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from forge_jobs.runtime import stack
from forge_jobs.runtime.running import RunState
from forge_jobs.storage.protocol import STACK
from forge_jobs.storage.types.log import STACK_LOGGER

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.running import Run

LEVEL: Final = logging.getLevelName(logging.INFO)
NOWHERE: Final = "nothing is to be seen: it begins or ends at this moment"


def asked(env: RuntimeEnv, names: Collection[str]) -> None:
    """Answer the questions among the names of a wake that are about jobs of this process."""
    for name in names:
        run = env.running.of_job(name.removeprefix(f"{STACK}/")) if name.startswith(f"{STACK}/") else None
        if run is None or run.task is None or run.state not in (RunState.RUNNING, RunState.ENDING):
            continue
        if run.place is not None:
            run.place.sample(run)
        else:
            tell(run, "on the event loop", stack.of_coroutine(run.task.get_coro()))


def tell(run: Run, where: str, lines: Sequence[str]) -> None:
    """Keep a sample for the job, and have it written at once."""
    logs = run.env.job_logs
    logs.keep(run, LEVEL, STACK_LOGGER, f"stack of its handler {where}, outermost first:")
    for line in lines or (NOWHERE,):
        logs.keep(run, LEVEL, STACK_LOGGER, line)
    for listener in run.env.listeners[STACK]:
        listener.set()
