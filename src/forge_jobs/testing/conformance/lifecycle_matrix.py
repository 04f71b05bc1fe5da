"""Every event meets a job in every status, and the row afterwards is what `storage.lifecycle` says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec
import pytest

from forge_jobs.clock import ManualClock
from forge_jobs.storage import lifecycle
from forge_jobs.storage.lifecycle import JobState, Transition
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.event import EventType
from forge_jobs.storage.types.finalize import Applied, Done, ErrorText, FinalizeOutcome, Lost, Released, Repeated
from forge_jobs.storage.types.job import ErrorKind, JobRow, JobStatus
from forge_jobs.storage.types.process import Claimed
from forge_jobs.testing.conformance.arrange import LONG_SILENCE, STALE, Stand, bring, read, take
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import (
    OTHER_HOST,
    make_claim,
    make_crashed,
    make_dead,
    make_failed,
    make_process,
    make_request,
    make_throttled,
)

Decision: TypeAlias = Callable[[JobState], Transition | None]

OUTCOMES: dict[str, FinalizeOutcome] = {
    "done": Done(),
    "failed": make_failed(delay=7),
    "dead": make_dead(),
    "throttled": make_throttled(7),
    "released": Released(),
    "crashed": make_crashed(delay=7),
}
ACTS: dict[str, tuple[Callable[[Storage, JobRow], Awaitable[Any]], Decision]] = {
    "cancel": (lambda storage, row: storage.jobs.cancel(row.id), lifecycle.cancel),
    "retry": (lambda storage, row: storage.jobs.retry(row.id), lifecycle.retry),
    "expire": (lambda storage, row: storage.jobs.expire_due(), lifecycle.expire),
    "replace": (
        lambda storage, row: storage.jobs.enqueue(make_request(dedupe_key="key", on_conflict="replace")),
        lifecycle.supersede,
    ),
}
every_stand = pytest.mark.parametrize("stand", Stand, ids=lambda stand: stand.name.lower())
every_outcome = pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES.keys())


class TestLifecycleMatrix:
    @every_stand
    @every_outcome
    async def test_the_owners_outcome(
        self, storage: Storage, clock: ManualClock, stand: Stand, outcome: FinalizeOutcome
    ) -> None:
        row = await bring(storage, clock, stand)
        answer = await storage.jobs.finalize(row.id, row.fence, outcome)
        if not stand.is_running:
            assert answer == Repeated()
            assert await read(storage, row.id) == row
            return
        transition = lifecycle.settle(_state(row), outcome)
        assert answer == Applied(status=transition.state.status, dead_reason=transition.dead_reason)
        await _is_written(storage, clock, row, transition)

    @every_stand
    @every_outcome
    async def test_the_outcome_of_an_owner_whose_fence_is_not_current(
        self, storage: Storage, clock: ManualClock, stand: Stand, outcome: FinalizeOutcome
    ) -> None:
        row = await bring(storage, clock, stand)
        assert await storage.jobs.finalize(row.id, row.fence - 1, outcome) == Lost()
        assert await read(storage, row.id) == row

    @every_stand
    @pytest.mark.parametrize("act", ACTS)
    async def test_what_people_and_sweeps_do(
        self, storage: Storage, clock: ManualClock, stand: Stand, act: str
    ) -> None:
        row = await bring(storage, clock, stand, dedupe_key="key", ttl=3600)
        if act == "expire":
            clock.advance("2h")
        do, decide = ACTS[act]
        await do(storage, row)
        transition = decide(_state(row))
        if transition is not None:
            await _is_written(storage, clock, row, transition)
        elif act == "cancel" and stand.is_running:
            asked = row.cancel_requested_at or clock.now()
            assert await read(storage, row.id) == msgspec.structs.replace(row, cancel_requested_at=asked)
        else:
            assert await read(storage, row.id) == row

    @every_stand
    async def test_the_reaper(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        row = await bring(storage, clock, stand)
        clock.advance(LONG_SILENCE)
        revived = await storage.jobs.revive_stale(STALE)
        assert [one.job_id for one in revived] == ([row.id] if stand.is_running else [])
        if stand.is_running:
            silence = replace(make_crashed(), error=ErrorText("silent", kind=ErrorKind.LOST_WORKER))
            transition = lifecycle.revive(_state(row), silence)
            await _is_written(storage, clock, row, transition)
            assert (revived[0].status, revived[0].dead_reason) == (transition.state.status, transition.dead_reason)
        else:
            assert await read(storage, row.id) == row

    @every_stand
    async def test_a_claim(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        row = await bring(storage, clock, stand)
        clock.advance("1m")
        jobs = await take(storage, 1, host_id=OTHER_HOST)
        assert [job.id for job in jobs] == ([row.id] if stand.is_waiting else [])
        changes: dict[str, Any] = {}
        if stand.is_waiting:
            changes = {
                "status": JobStatus.IN_PROGRESS,
                "fence": row.fence + 1,
                "attempts": row.attempts + 1,
                "started_at": clock.now(),
                "heartbeat_at": clock.now(),
                "host_id": OTHER_HOST,
                "process_id": make_claim(host_id=OTHER_HOST).slots[0],
            }
        after = await read(storage, row.id)
        assert after == msgspec.structs.replace(row, **changes, worker=after.worker)

    @every_stand
    async def test_run_now(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        row = await bring(storage, clock, stand)
        clock.advance(1)
        changed = await storage.jobs.run_now(row.id)
        assert changed is lifecycle.run_now(_state(row))
        due = {"scheduled_at": clock.now()} if changed else {}
        assert await read(storage, row.id) == msgspec.structs.replace(row, **due)

    @every_stand
    async def test_delete(self, storage: Storage, clock: ManualClock, stand: Stand) -> None:
        row = await bring(storage, clock, stand)
        await storage.jobs.delete(row.id)
        detail = await storage.jobs.get(row.id)
        if lifecycle.may_delete(_state(row)):
            assert detail is None
        else:
            assert detail is not None
            asked = row.cancel_requested_at or clock.now()
            assert detail.row == msgspec.structs.replace(row, cancel_requested_at=asked)

    @every_stand
    async def test_a_heartbeat(self, storage: Storage, clock: ManualClock, stand: Stand, beater: Beater) -> None:
        row = await bring(storage, clock, stand)
        clock.advance(3)
        await beater.beat(make_process(), Claimed(row.id, row.fence))
        after = await read(storage, row.id)
        beat = {"heartbeat_at": clock.now()} if stand.is_running else {}
        assert after == msgspec.structs.replace(row, worker=after.worker, **beat)

    @every_stand
    async def test_a_claim_of_another_queue_kind_or_time(
        self, storage: Storage, clock: ManualClock, stand: Stand
    ) -> None:
        row = await bring(storage, clock, stand)
        await take(storage, 5, queue="other")
        await take(storage, 5, kinds=("other",))
        clock.step(-timedelta(days=1))
        await take(storage, 5, kinds=("other",), alone=True)
        assert await read(storage, row.id) == row


def _state(row: JobRow) -> JobState:
    return JobState(
        status=JobStatus(row.status),
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        crashes=row.crashes,
        throttles=row.throttles,
        fence=row.fence,
        cancel_requested=row.cancel_requested_at is not None,
    )


async def _is_written(storage: Storage, clock: ManualClock, before: JobRow, transition: Transition) -> None:
    """The row is the one before, with what the transition says and nothing else."""
    after = await read(storage, before.id)
    state = transition.state
    changes: dict[str, Any] = {
        "status": state.status,
        "attempts": state.attempts,
        "crashes": state.crashes,
        "throttles": state.throttles,
        "fence": state.fence,
        "dead_reason": transition.dead_reason,
    }
    if before.status == JobStatus.IN_PROGRESS:
        changes |= {"process_id": None, "heartbeat_at": None}
    if transition.due_in is not None:
        changes["scheduled_at"] = clock.now() + transition.due_in
    if transition.finished:
        changes["completed_at"] = clock.now()
    if transition.event is EventType.REQUEUED:
        changes |= {"completed_at": None, "cancel_requested_at": None}
    if transition.error is not None:
        assert after.last_error is not None
        changes["last_error"] = after.last_error
        detail = await storage.jobs.get(before.id)
        assert detail is not None
        assert detail.history[-1].kind_of_error == transition.error.kind
    assert after == msgspec.structs.replace(before, **changes, worker=after.worker)
