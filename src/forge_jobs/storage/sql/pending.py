"""An operation on its way to the store and back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from forge_jobs.observe import Observer
from forge_jobs.storage.sql.driver import Operation
from forge_jobs.storage.types.metric import Tally

Done = Callable[[Any, Exception | None], None]


@dataclass(slots=True, eq=False)
class Pending:
    """An operation: waiting, then running on a driver's thread, then answered (or given up by its deadline, an
    instant of `time.monotonic()`)."""

    operation: Operation[Any]
    label: str
    done: Done | None
    deadline: float
    timer: asyncio.TimerHandle | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Whoever takes it decides: the driver's thread runs the operation, or its caller has given it up."""
    tally: Tally | None = None
    """Where the time that it took is added."""
    observer: Observer | None = None
    began: float = field(default_factory=time.monotonic)
    uncertain: bool = False
    """A try of it may have been committed."""

    def answer(self, result: Any, error: Exception | None) -> None:
        """Tell the caller, once. On the event loop."""
        if self.timer is not None:
            self.timer.cancel()
        done, self.done = self.done, None
        if done is not None:
            took_s = time.monotonic() - self.began
            if self.tally is not None:
                self.tally.add(took_s * 1000)
            if self.observer is not None:
                observe_operation(self.observer, self.label, took_s, error)
            done(result, error)


def observe_operation(observer: Observer, label: str, took_s: float, error: BaseException | None) -> None:
    """Count an operation that is over."""
    observer.measure("store_op_seconds", took_s, label)
    if error is not None:
        observer.count("store_errors", label, type(error).__name__)
    if observer.wants("store_op"):
        observer.happened("store_op", op=label, duration_s=took_s, error=error)


def answered_in(loop: asyncio.AbstractEventLoop) -> tuple[asyncio.Future[Any], Done]:
    """A future, and the `done` that fulfils it."""
    answer: asyncio.Future[Any] = loop.create_future()

    def done(result: Any, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    return answer, done
