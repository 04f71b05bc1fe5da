"""Where the handlers of a worker run: as each one says, else as its queue says, else where its function fits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from forge_jobs.names import check_name
from forge_jobs.runtime.executors.executor import Executor, executor_named, unfit
from forge_jobs.storage.error import ConfigError, InvalidName

if TYPE_CHECKING:
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.handler import HandlerRegistry, RegisteredHandler, Run


class Placement:
    """The executor of each kind on each queue of one worker process."""

    def __init__(self, handlers: HandlerRegistry, by_queue: Mapping[str, Executor], queues: Iterable[str]) -> None:
        self._handlers = handlers
        self._by_queue = by_queue
        self._queues = tuple(queues)
        self._moved: dict[tuple[str, str], tuple[RegisteredHandler, RegisteredHandler]] = {}
        """By kind and queue: the handler as registered, and as it runs there."""

    def check(self) -> None:
        """Raises `ConfigError` if a handler that leaves the choice to its queue cannot run where that says."""
        for queue, executor in self._by_queue.items():
            for kind in self._handlers.kinds():
                entry = self._handlers.get(kind)
                if entry is not None and (reason := _misfit(entry, queue, executor)) is not None:
                    raise ConfigError(reason)

    def handler(self, kind: str, queue: str) -> RegisteredHandler | None:
        """The handler of a kind as it runs on this queue, if there is one."""
        entry = self._handlers.get(kind)
        executor = self._by_queue.get(queue) if self._by_queue else None
        if entry is None or executor is None or entry.options.executor is not None or entry.executor is executor:
            return entry
        known = self._moved.get((kind, queue))
        if known is None or known[0] is not entry:  # registered anew meanwhile
            known = self._moved[kind, queue] = entry, _moved(entry, queue, executor)
        return known[1]

    def kinds_on(self, executor: Executor, queue: str | None = None) -> list[str]:
        """The kinds that run on this executor if their jobs come from that queue, or from some queue; sorted."""
        queues = self._queues if queue is None else (queue,)
        return [
            kind
            for kind in self._handlers.kinds()
            if any((entry := self.handler(kind, one)) is not None and entry.executor is executor for one in queues)
        ]


def check_executors(given: Any, queues: Iterable[str] | None = None) -> dict[str, Executor]:
    """The executors of queues as they were asked for, by queue.

    Raises:
        ConfigError: it is no mapping of queues to `async`, `thread` or `process`, or has a queue that is none of
            `queues`, if those are given.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f'executors {given!r} must map queues to executors, as in {{"reports": "process"}}')
    served = None if queues is None else list(queues)
    found = {}
    for queue, name in given.items():
        try:
            check_name(queue, "queue")
            found[queue] = executor_named(name)
        except (InvalidName, ConfigError) as error:
            raise ConfigError(f"executors[{queue!r}]: {error}") from error
        if served is not None and queue not in served:
            near = difflib.get_close_matches(queue, served, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"executors names the queue {queue!r}, but served are {', '.join(served)}{hint}")
    return found


def _moved(entry: RegisteredHandler, queue: str, executor: Executor) -> RegisteredHandler:
    reason = _misfit(entry, queue, executor)
    return entry.on(executor) if reason is None else entry.instead(_refusing(reason))


def _misfit(entry: RegisteredHandler, queue: str, executor: Executor) -> str | None:
    """Why a handler cannot run where its queue says, and what to do; None if it can, or says itself where it runs."""
    if entry.options.executor is not None:
        return None
    reason = unfit(executor, is_async=entry.is_async)
    if reason is None and executor is Executor.PROCESS and entry.is_resident:
        reason = "keeps something for its worker (`runtime_started`), which a child process does not have"
    if reason is None:
        return None
    return (
        f"queue {queue!r} is to run its handlers with executor {executor.value!r}, but the handler for kind "
        f"{entry.kind!r} {reason}; give that handler executor={entry.executor.value!r}, which comes first, or "
        f"leave {queue!r} out of the executors of queues"
    )


def _refusing(reason: str) -> Run:
    """For a handler that was registered after the start, when nothing could be refused any more."""

    async def run(ctx: JobCtx, payload: Any) -> Any:
        raise ConfigError(reason)

    return run
