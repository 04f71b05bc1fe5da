"""The queue store over a driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.names import check_name
from forge_jobs.storage.error import NotFound, QueueInUse
from forge_jobs.storage.protocol import CLUSTER, PYTHON, STALE_AFTER
from forge_jobs.storage.recent import FEW, Recent
from forge_jobs.storage.sql.book import statement
from forge_jobs.storage.sql.counts import fold_finished, read_counts, unfinished
from forge_jobs.storage.sql.driver import Driver, Row, Tx, Wake
from forge_jobs.storage.sql.enqueue import KnownQueues
from forge_jobs.storage.sql.explain import explain_queue
from forge_jobs.storage.sql.rows import audit_params, queue_settings
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.queue import QueueChange, QueueCounts, QueueSettings

ENSURE_QUEUE = statement("ensure_queue")
GET_QUEUE = statement("get_queue")
LIST_QUEUES = statement("list_queues")
LIST_PAUSES = statement("list_pauses")
LOCK_TOTAL = statement("lock_total")
WRITE_QUEUE = statement("write_queue")
WRITE_COOL_DOWN = statement("write_cool_down")
PAUSE_QUEUE = statement("pause_queue")
SIGNAL_PAUSE = statement("signal_pause")
RESUME_QUEUE = statement("resume_queue")
QUEUE_HAS_JOBS = statement("queue_has_jobs")
LIVE_PROCESS_OF_QUEUE = statement("live_process_of_queue")
DELETE_QUEUE = statement("delete_queue")
DELETE_PAUSES = statement("delete_pauses")
DELETE_SHARES_OF_QUEUE = statement("delete_shares_of_queue")

INSERT_AUDIT = statement("insert_audit")

STALE_FOR_DELETE_US = 30_000_000


class SqlQueues:
    """Implements `QueueStore`."""

    def __init__(self, driver: Driver, wake: Wake, known: KnownQueues) -> None:
        self._known = known
        self._driver = driver
        self._wake = wake
        self._recent_counts = Recent(self.counts, cheap=lambda counts: sum(map(unfinished, counts.values())) <= FEW)

    async def ensure(self, name: str, defaults: QueueChange | None = None) -> QueueSettings:
        check_name(name, "queue")
        given = (defaults or QueueChange()).given()

        def operation(tx: Tx) -> QueueSettings:
            if tx.change(ENSURE_QUEUE, {"name": name}) and given:
                _write(tx, name, given, None)
            return _get(tx, name)

        return await self._driver.write(operation, label="queue")

    async def add(self, name: str, change: QueueChange, *, actor: Actor = PYTHON) -> bool:
        check_name(name, "queue")
        given = change.given()

        def operation(tx: Tx) -> bool:
            if not tx.change(ENSURE_QUEUE, {"name": name}):
                return False
            _write(tx, name, given, actor.name)
            _audit(tx, actor, "queue.add", name, None, given)
            return True

        added = await self._driver.write(operation, label="queue")
        self._known.forget()
        return added

    async def get(self, name: str) -> QueueSettings | None:
        check_name(name, "queue")

        def operation(tx: Tx) -> QueueSettings | None:
            row = tx.row(GET_QUEUE, {"name": name})
            return None if row is None else queue_settings(row, _pauses(tx, name))

        return await self._driver.read(operation)

    async def list(self) -> list[QueueSettings]:
        def operation(tx: Tx) -> list[QueueSettings]:
            pauses = tx.rows(LIST_PAUSES)
            return [queue_settings(row, [p for p in pauses if p[0] == row[0]]) for row in tx.rows(LIST_QUEUES)]

        return await self._driver.read(operation)

    async def explain(self, name: str, *, stale_after: timedelta = STALE_AFTER) -> Sequence[Blocker]:
        check_name(name, "queue")
        return await self._driver.read(lambda tx: explain_queue(tx, name, stale_after))

    async def change(
        self,
        name: str,
        change: QueueChange,
        *,
        check: Callable[[QueueSettings], None] = lambda found: None,
        actor: Actor = PYTHON,
    ) -> QueueSettings:
        check_name(name, "queue")
        given = change.given()

        def operation(tx: Tx) -> QueueSettings:
            tx.row(LOCK_TOTAL, {"queue": name})
            found = _get(tx, name)
            check(found)
            before = _shown(found)
            _write(tx, name, given, actor.name)
            stored = _get(tx, name)
            after = _shown(stored)
            changed = [key for key in after if after[key] != before[key]]
            _audit(tx, actor, "queue.set", name, {k: before[k] for k in changed}, {k: after[k] for k in changed})
            return stored

        settings = await self._driver.write(operation, label="queue")
        self._known.forget()
        self._wake.due([name, CLUSTER] if "max_workers" in given else [name])
        return settings

    async def pause(self, name: str, *, signal: bool = True, process: str | None = None, actor: Actor = PYTHON) -> bool:
        check_name(name, "queue")

        def operation(tx: Tx) -> bool:
            _get(tx, name)
            params = {"name": name, "host": process or "", "signal": signal, "by": actor.name}
            paused = tx.change(PAUSE_QUEUE, params) == 1
            if signal and not paused:  # already paused, but its handlers were not told yet
                tx.change(SIGNAL_PAUSE, params)
            _audit(tx, actor, "queue.pause", name, None, {"signal": signal, "process": process, "changed": paused})
            return paused

        changed = await self._driver.write(operation, label="queue")
        self._wake.due([name])
        return changed

    async def resume(self, name: str, *, process: str | None = None, actor: Actor = PYTHON) -> bool:
        check_name(name, "queue")

        def operation(tx: Tx) -> bool:
            _get(tx, name)
            resumed = tx.change(RESUME_QUEUE, {"name": name, "host": process or ""}) == 1
            _audit(tx, actor, "queue.resume", name, None, {"process": process, "changed": resumed})
            return resumed

        changed = await self._driver.write(operation, label="queue")
        self._wake.due([name])
        return changed

    async def clear_cool_down(self, name: str, *, actor: Actor = PYTHON) -> QueueSettings:
        check_name(name, "queue")

        def operation(tx: Tx) -> QueueSettings:
            before = _get(tx, name)
            tx.change(WRITE_COOL_DOWN, {"name": name, "throttle_attempts": 0, "throttled_until": None})
            shown = {"throttle_attempts": before.throttle_attempts, "throttled_until": _text(before.throttled_until)}
            _audit(tx, actor, "queue.clear_cool_down", name, shown, None)
            return _get(tx, name)

        settings = await self._driver.write(operation, label="queue")
        self._wake.due([name])
        return settings

    async def delete(self, name: str, *, actor: Actor = PYTHON) -> None:
        check_name(name, "queue")

        def operation(tx: Tx) -> None:
            _get(tx, name)
            if tx.row(QUEUE_HAS_JOBS, {"name": name}) is not None:
                raise QueueInUse(f"queue {name!r} still has jobs; delete them first")
            live = tx.row(LIVE_PROCESS_OF_QUEUE, {"queue": name, "stale": STALE_FOR_DELETE_US})
            if live is not None:
                raise QueueInUse(f"queue {name!r} is served by the live process {live[0]}; stop it first")
            tx.change(DELETE_QUEUE, {"name": name})
            tx.change(DELETE_PAUSES, {"name": name})
            tx.change(DELETE_SHARES_OF_QUEUE, {"name": name})
            _audit(tx, actor, "queue.delete", name, None, None)

        await self._driver.write(operation, label="queue")
        self._known.forget()

    async def counts(self) -> dict[str, QueueCounts]:
        return await self._driver.read(read_counts)

    async def recent_counts(self) -> dict[str, QueueCounts]:
        return await self._recent_counts.get()

    async def close(self) -> None:
        """End what is read beside."""
        await self._recent_counts.close()

    async def fold_counts(self) -> None:
        await self._driver.write(fold_finished, label="counts")


def _pauses(tx: Tx, name: str) -> list[Row]:
    return [row for row in tx.rows(LIST_PAUSES) if row[0] == name]


def _get(tx: Tx, name: str) -> QueueSettings:
    row = tx.row(GET_QUEUE, {"name": name})
    if row is None:
        raise NotFound(f"there is no queue {name!r}")
    return queue_settings(row, _pauses(tx, name))


def _write(tx: Tx, name: str, given: dict[str, Any], by: str | None) -> None:
    stored = _get(tx, name)
    values = {
        "max_workers": stored.max_workers,
        "retain_done_days": stored.retain_done_days,
        "retain_dead_days": stored.retain_dead_days,
        "backoff_enabled": stored.backoff.enabled,
        "backoff_base_s": stored.backoff.base_s,
        "backoff_cap_s": stored.backoff.cap_s,
        "backoff_jitter": stored.backoff.jitter,
        "cool_down": stored.cool_down,
        "max_pending": stored.max_pending,
    }
    tx.change(WRITE_QUEUE, {**values, **given, "name": name, "by": by})


def _shown(settings: QueueSettings) -> dict[str, Any]:
    shown = asdict(settings)
    hidden = ("updated_at", "updated_by", "throttled_until", "throttle_attempts", "paused_at")
    return {key: value for key, value in shown.items() if key not in hidden}


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _audit(tx: Tx, actor: Actor, action: str, name: str, before: object, after: object) -> None:
    tx.change(INSERT_AUDIT, audit_params(actor, action, name, outcome="ok", before=before, after=after))
