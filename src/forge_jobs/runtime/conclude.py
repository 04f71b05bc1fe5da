"""From how a run ended to what is recorded: the four stop signals, and what each makes of an outcome.

Done is always Done. A run that was interrupted (pause, shutdown, self-fence) and then failed or was ended is
released: it did nothing wrong. A user's cancel is decided by the store, which knows the flag. A lost job is
recorded as nothing at all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from forge_jobs import limits
from forge_jobs.payload import BadPayload
from forge_jobs.runtime import outcome as answers
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.hooks import HookFault
from forge_jobs.runtime.outcome import ChildDied, ChildRaised, OutcomeError
from forge_jobs.storage.backoff import crash_delay, retry_delay, throttle_delay
from forge_jobs.storage.types.finalize import (
    Crashed,
    Dead,
    Done,
    ErrorText,
    Failed,
    FinalizeOutcome,
    Released,
    Throttled,
)
from forge_jobs.storage.types.job import ErrorKind

if TYPE_CHECKING:
    from forge_jobs.runtime.handler_options import HandlerOptions
    from forge_jobs.runtime.running import Run
    from forge_jobs.storage.types.job import JobRecord

log = logging.getLogger("forge_jobs.worker")

INTERRUPTS: Final = frozenset({CancelReason.PAUSE, CancelReason.SHUTDOWN, CancelReason.LOST_OWNERSHIP})
DONE: Final = Done()
GROUP_MEMBERS_SHOWN: Final = 5


def conclude(run: Run, answer: object, error: BaseException | None) -> FinalizeOutcome:
    """What to record of a run that returned `answer` or raised `error`."""
    if run.committed or (error is None and (answer is None or type(answer) is answers.Done)):
        return DONE
    try:
        return _of_answer(run, answer) if error is None else _of_error(run, error)
    except Exception as fault:  # an outcome so odd that reading it fails must not cost the slot
        log.exception("outcome_unreadable job_id=%s", run.job.id)
        return _failed(run, ErrorText(f"its outcome could not be read ({type(fault).__name__})"), None)


def _of_answer(run: Run, answer: object) -> FinalizeOutcome:
    match answer:
        case answers.Done():
            return DONE
        case answers.Dead(message=message):
            return Dead(ErrorText(_text(message) or "rejected by its handler", kind=ErrorKind.DEAD))
        case answers.Failed(message=message):
            return _failed(run, ErrorText(_text(message) or "failed"), None)
        case answers.Throttled():
            return _throttled(run, answer)
    return _failed(run, ErrorText(odd_answer(answer)), None)


def odd_answer(answer: object) -> str:
    """What is wrong with an answer that is no outcome."""
    name = answer.__name__ if isinstance(answer, type) else type(answer).__name__
    what = f"the class {name} itself" if isinstance(answer, type) else f"a {name}"
    return f"handler returned {what}; it must return None, Done(), Throttled(), Failed() or Dead()"


def _of_error(run: Run, error: BaseException) -> FinalizeOutcome:
    if isinstance(error, OutcomeError):
        return _of_answer(run, error.outcome) if not isinstance(error.outcome, answers.Done) else DONE
    if isinstance(error, asyncio.CancelledError):
        return _of_cancellation(run)
    if isinstance(error, BadPayload):
        return _of_payload(run, ErrorText(str(error)))
    if isinstance(error, HookFault):
        return _failed(run, describe(error), error)
    if isinstance(error, ChildDied):
        return _crashed(run, error)
    if isinstance(error, ChildRaised):
        text, final = ErrorText(str(error), error.traceback), error.final
    else:
        text, final = describe(error), is_final(run.handler.options, error)
    if final:
        return Dead(ErrorText(text.message, text.traceback, ErrorKind.DEAD))
    return _failed(run, text, error)


def _of_payload(run: Run, text: ErrorText) -> FinalizeOutcome:
    """A payload that cannot be read: a deploy may mend its handler, unless the kind says that nothing can."""
    if run.handler.options.bad_payload == "dead":
        return Dead(ErrorText(text.message, kind=ErrorKind.DEAD))
    return _failed(run, text, None)


def is_final(options: HandlerOptions, error: BaseException) -> bool:
    """Whether what a handler raised ends its job at once."""
    if options.dead_on and isinstance(error, options.dead_on):
        return True
    return options.retry_on is not None and not isinstance(error, options.retry_on)


def _of_cancellation(run: Run) -> FinalizeOutcome:
    reason = run.ended_by or run.cancel.reason
    if reason is None:
        return _failed(run, ErrorText("handler raised CancelledError, though nobody cancelled it"), None)
    if reason is CancelReason.TIMEOUT:
        return timed_out(run)
    if reason is CancelReason.USER:
        return Failed(error=ErrorText("stopped on request", kind=ErrorKind.CANCELLED), delay=timedelta(0))
    return Released()


def timed_out(run: Run) -> FinalizeOutcome:
    """A run that took longer than its handler's timeout."""
    seconds = run.timeout_s or 0.0
    error = ErrorText(f"timeout after {seconds:g} s", kind=ErrorKind.TIMEOUT)
    return Failed(error=error, delay=_delay(run, TimeoutError(error.message)))


def _failed(run: Run, text: ErrorText, error: BaseException | None) -> FinalizeOutcome:
    if run.ended_by is CancelReason.TIMEOUT:
        return timed_out(run)
    if run.cancel.reason in INTERRUPTS:
        return Released()
    return Failed(error=text, delay=_delay(run, error))


def _crashed(run: Run, death: ChildDied) -> FinalizeOutcome:
    """Its child died. One that was told to stop, or whose time was up, did not crash."""
    if run.ended_by is CancelReason.TIMEOUT:
        return timed_out(run)
    if run.cancel.reason in INTERRUPTS:
        return Released()
    policy = run.env.queue_settings(run.job.queue).backoff
    return Crashed(
        error=ErrorText(_text(death) or "its child process died", kind=ErrorKind.CRASH),
        delay=crash_delay(run.job.crashes + 1, policy),
        max_crashes=run.env.max_crashes(run.job.kind),
    )


def _throttled(run: Run, answer: answers.Throttled) -> FinalizeOutcome:
    try:
        seconds = hint_s(answer.retry_after)
    except ValueError as fault:
        return _failed(run, ErrorText(str(fault)), None)
    if seconds is not None and seconds > limits.RETRY_AFTER_S[1]:
        log.warning("retry_after_cut job_id=%s limit_s=%s", run.job.id, limits.RETRY_AFTER_S[1])
        seconds = limits.RETRY_AFTER_S[1]
    settings = run.env.queue_settings(run.job.queue)
    return Throttled(
        delay=throttle_delay(seconds, settings.throttle_attempts, settings.backoff),
        hinted=seconds is not None,
        cool_down=bool(answer.cool_down),
        scope=_scope_paid(run),
    )


def hint_s(hint: Any) -> float | None:
    """A `retry_after` in seconds.

    Raises:
        ValueError: it is no number of seconds.
    """
    seconds = hint.total_seconds() if isinstance(hint, timedelta) else hint
    if type(seconds) is int:
        seconds = float(min(seconds, 10 * limits.RETRY_AFTER_S[1]))
    if seconds is not None and (type(seconds) is not float or not math.isfinite(seconds) or seconds < 0):
        raise ValueError(f"invalid retry_after {hint!r}: it must be seconds, 0 or more, or a timedelta")
    return seconds


def _scope_paid(run: Run) -> str | None:
    """The rate limit that the job was paid from."""
    price = run.handler.options.price
    try:
        paid = None if price is None else price.of(run.handler.reader.decode(run.job.payload))
    except Exception:  # the user's code; it gave something before
        log.exception("rate_limit_fault kind=%s job_id=%s", run.job.kind, run.job.id)
        return None
    return None if paid is None else paid[0]


def _delay(run: Run, error: BaseException | None) -> timedelta:
    """The kind's own backoff, else the queue's curve."""
    if isinstance(error, ChildRaised):
        seconds = error.delay_s
    else:
        seconds = own_delay_s(run.handler.options, run.job, error)
    if seconds is not None:
        return timedelta(seconds=seconds)
    return retry_delay(run.job.attempts, run.env.queue_settings(run.job.queue).backoff)


def own_delay_s(options: HandlerOptions, job: JobRecord, error: BaseException | None) -> float | None:
    """What the kind's own backoff makes of a failure; None if it has none, or none that makes sense."""
    attempt, own = job.attempts, options.backoff
    if own is None:
        return None
    try:
        seconds = own[min(attempt, len(own)) - 1] if isinstance(own, Sequence) else own(attempt, error)
        if not 0 <= seconds <= limits.BACKOFF_S[1]:
            raise ValueError(f"backoff gave {seconds!r} seconds")
        return seconds
    except BaseException:  # the user's code, and no reason to end the worker
        log.exception("backoff_fault kind=%s; the queue's curve is used", job.kind)
        return None


def describe(error: BaseException) -> ErrorText:
    """The cause chain in one line, outermost first, and the traceback without locals."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        parts.append(_one(current))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    try:
        trace = "".join(traceback.format_exception(error))
    except Exception:  # an exception whose __str__ raises must not cost the job its history
        trace = None
    return ErrorText(": ".join(parts), trace)


def _one(error: BaseException) -> str:
    shown = _text(error)
    if not shown or isinstance(error, (KeyError, StopIteration)) or not isinstance(error, Exception):
        shown = f"{type(error).__name__}({shown})" if shown else type(error).__name__  # "3" alone says nothing
    if isinstance(error, BaseExceptionGroup):
        members = [_one(member) for member in error.exceptions[:GROUP_MEMBERS_SHOWN]]
        more = len(error.exceptions) - len(members)
        shown += f" [{', '.join(members)}{f', {more} more' if more else ''}]"
    return shown


def _text(value: object) -> str:
    try:
        return str(value)
    except BaseException:  # whatever a handler's object does when shown
        return ""
