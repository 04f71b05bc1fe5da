"""Acts on many jobs, run in the background of this server and looked at while they run."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from forge_jobs.api.problem import Problem, problem_of
from forge_jobs.clock import from_us
from forge_jobs.ids import new_id
from forge_jobs.storage.error import ForgeError
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import BulkReport
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.job import JobFilter

log = logging.getLogger("forge_jobs.api")

AT_ONCE: Final = 4
REMEMBERED: Final = 200
"""Operations that can be looked at; of those that ended the oldest go first."""


@dataclass(slots=True)
class Operation:
    """One act, as far as it has come."""

    id: str
    action: str
    chosen: JobFilter
    total: int
    actor: Actor
    started_at: datetime
    per_s: float | None = None
    state: str = "running"
    changed: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    ended_at: datetime | None = None
    stop: bool = False

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "action": self.action,
            "per_s": self.per_s,
            "state": self.state,
            "total": self.total,
            "done": self.changed + sum(self.skipped.values()),
            "changed": self.changed,
            "skipped": self.skipped,
            "error": self.error,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "actor": self.actor.name,
        }


class Operations:
    """The acts of one server. They end with it, between two batches: what was done stays done and audited."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: OrderedDict[str, Operation] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(
        self, action: str, chosen: JobFilter, total: int, actor: Actor, *, per_s: float | None = None
    ) -> Operation:
        """Begin an act on the jobs that there are now.

        Raises:
            Problem: too many run already.
        """
        if len(self._tasks) >= AT_ONCE:
            raise Problem("rate_limited", f"{AT_ONCE} operations run already; wait for one to end",
                          headers={"Retry-After": "5"})  # fmt: skip
        now = from_us(self._storage.clock.now_us())
        chosen = chosen if chosen.until is not None else replace(chosen, until=now)
        operation = Operation(new_id(), action, chosen, total, actor, now, per_s)
        self._known[operation.id] = operation
        self._forget()
        task = asyncio.get_running_loop().create_task(self._run(operation), name=f"forge-operation-{operation.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return operation

    def list(self) -> list[Operation]:
        """All that are remembered, newest first."""
        return list(reversed(self._known.values()))

    def get(self, id: str) -> Operation | None:
        return self._known.get(id)

    async def close(self) -> None:
        """Stop all of them."""
        for operation in self._known.values():
            operation.stop = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, operation: Operation) -> None:
        def watch(so_far: BulkReport) -> bool:
            operation.changed, operation.skipped = so_far.changed, so_far.skipped
            return not operation.stop

        try:
            report = await self._storage.jobs.act_on(
                operation.action,
                operation.chosen,
                per_s=operation.per_s,
                actor=operation.actor,
                watch=watch,
            )
            operation.changed, operation.skipped = report.changed, report.skipped
            operation.state = "stopped" if operation.stop else "done"
            if operation.chosen.ids is not None and not operation.stop:
                lacking = operation.total - operation.changed - sum(report.skipped.values())
                if lacking > 0:
                    operation.skipped = {**report.skipped, "not_found": lacking}
        except ForgeError as error:
            log.warning("operation_failed id=%s error=%r", operation.id, error)
            operation.state, operation.error = "failed", problem_of(error).detail
        except Exception:
            log.exception("operation_fault id=%s", operation.id)
            operation.state, operation.error = "failed", "something went wrong here; the server's log says what"
        except asyncio.CancelledError:
            operation.state = "stopped"
            raise
        finally:
            operation.ended_at = from_us(self._storage.clock.now_us())

    def _forget(self) -> None:
        for id in [id for id, one in self._known.items() if one.state != "running"]:
            if len(self._known) <= REMEMBERED:
                return
            del self._known[id]
