"""The program of a child process: imports the registry, then runs one job after the other on its main thread.

`async def` handlers run on an event loop of the child's, plain functions directly, so that their CPU time is theirs
alone. Started by `warm_child.py`; the descriptors 3 and 4 lead to the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
from typing import Any, Final

from forge_jobs import limits
from forge_jobs.runtime import outcome as answers
from forge_jobs.runtime.cancel import CancelToken
from forge_jobs.runtime.conclude import describe, hint_s, is_final, odd_answer, own_delay_s
from forge_jobs.runtime.executors.child_context import ChildCtx
from forge_jobs.runtime.executors.child_link import Link
from forge_jobs.runtime.executors.frames import Began, Ended, LogLine, Ready, RunJob, Unready
from forge_jobs.runtime.find_registry import NoRegistry, find_registry
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.handler_options import HandlerOptions
from forge_jobs.runtime.lifespan import Life, State
from forge_jobs.storage.error import ConfigError, LifespanError
from forge_jobs.storage.types.job import JobRecord
from forge_jobs.text import clean

LOG_LINE_BYTES: Final = 8 * 1024


def main() -> None:
    link = Link()
    link.start()
    hello = link.hello.get()
    if hello is None:
        return
    _log_to_worker(link, hello.log_level)
    signal.signal(signal.SIGTERM, lambda number, frame: _on_term(link))
    try:
        handlers = find_registry(hello.registry)
    except ConfigError as error:
        hint = error.hint if isinstance(error, NoRegistry) else None
        link.send(Unready(f"{error} ({hint})" if hint else str(error)))
        return
    with asyncio.Runner() as runner:
        life = Life(handlers.lifespans)
        try:
            state = runner.run(life.enter(asyncio.Event()))
        except LifespanError as error:
            link.send(Unready(str(error)))
            return
        link.send(Ready(handlers.kinds()))
        while (asked := link.jobs.get()) is not None:
            link.send(_run(link, handlers, *asked, runner, state))
            del asked  # an idle child holds nothing of its last job
        runner.run(life.leave())


def _on_term(link: Link) -> None:
    """End, unless a handler works that nobody has told to stop: a service manager may send SIGTERM to all processes of
    a service, and then the worker says what becomes of the job."""
    if link.working and not link.token.is_cancelled:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _run(
    link: Link, handlers: HandlerRegistry, asked: RunJob, token: CancelToken, runner: asyncio.Runner, state: State
) -> Ended:
    """Call the handler, whatever it raises."""
    entry = handlers.get(asked.job.kind)
    if entry is None or entry.call is None:
        return Ended(asked.number, "raised", message=f"the child process has no handler for kind {asked.job.kind!r}")
    ctx = ChildCtx(link, asked, token, runner, state)
    link.working = True
    link.send(Began(asked.number))
    try:
        answer = entry.call(ctx, entry.reader.decode(asked.job.payload))
        if inspect.iscoroutine(answer):
            link.coroutine = answer
            answer = runner.run(answer)
        return _answered(asked.number, answer)
    except BaseException as error:  # a handler's SystemExit ends its job, not this process
        return _raised(asked.number, error, entry.options, asked.job)
    finally:
        link.working, link.coroutine = False, None


def _answered(number: int, answer: Any) -> Ended:
    match answer:
        case None | answers.Done():
            return Ended(number, "done")
        case answers.Throttled(retry_after=hint, cool_down=cool_down):
            try:
                return Ended(number, "throttled", retry_after_s=hint_s(hint), cool_down=bool(cool_down))
            except ValueError as fault:
                return Ended(number, "odd", message=_cut(str(fault)))
        case answers.Failed(message=message):
            return Ended(number, "failed", message=_cut(_text(message)))
        case answers.Dead(message=message):
            return Ended(number, "dead", message=_cut(_text(message)))
    return Ended(number, "odd", message=_cut(odd_answer(answer)))


def _raised(number: int, error: BaseException, options: HandlerOptions, job: JobRecord) -> Ended:
    if isinstance(error, answers.OutcomeError):
        return _answered(number, error.outcome)
    if isinstance(error, asyncio.CancelledError):
        return Ended(number, "cancelled")
    text = describe(error)
    return Ended(
        number,
        "raised",
        message=_cut(text.message),
        traceback=text.traceback and clean(text.traceback, limits.TRACEBACK_BYTES),
        final=is_final(options, error),
        delay_s=own_delay_s(options, job, error),
    )


def _cut(text: str) -> str:
    return clean(text, limits.ERROR_TEXT_BYTES)


def _text(value: object) -> str:
    try:
        return str(value)
    except BaseException:  # whatever a handler's object does when shown
        return ""


class _ToWorker(logging.Handler):
    """Log records, sent to the worker."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._link.send(LogLine(record.name, record.levelno, clean(self.format(record), LOG_LINE_BYTES)))
        except Exception:
            self.handleError(record)


def _log_to_worker(link: Link, level: int) -> None:
    logging.basicConfig(handlers=[_ToWorker(link)], level=level, force=True)


if __name__ == "__main__":
    main()
