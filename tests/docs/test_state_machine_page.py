"""The state machine page says what `storage/lifecycle.py` decides."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import pytest

from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.storage import lifecycle
from forge_jobs.storage.lifecycle import JobState, Transition
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
from forge_jobs.storage.types.job import DeadReason, JobStatus
from forge_jobs.testing.factories import make_claim

from .page import ROOT, blocks, tables

PAGE: Final = ROOT / "docs/reference/state-machine.md"
DELAY: Final = timedelta(seconds=7)
OUTCOMES: Final[dict[str, FinalizeOutcome]] = {
    "Done": Done(),
    "Failed": Failed(error=ErrorText("boom"), delay=DELAY),
    "Dead": Dead(ErrorText("no")),
    "Throttled": Throttled(delay=DELAY, hinted=True),
    "release": Released(),
}
CRASH: Final = Crashed(error=ErrorText("gone"), delay=DELAY, max_crashes=3)
ACTS: Final[dict[str, Callable[[JobState], Transition | None]]] = {
    "cancel": lifecycle.cancel,
    "expire": lifecycle.expire,
    "replace": lifecycle.supersede,
    "retry": lifecycle.retry,
}
RUNNING: Final = JobState(status=JobStatus.IN_PROGRESS, attempts=2, max_attempts=5, crashes=0, throttles=1, fence=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table."""

    sources: tuple[str, ...]
    event: str
    target: str
    reason: str | None
    changes: dict[str, str]
    due: str
    row: str


def lines() -> list[Line]:
    (_titles, *rows), *_ = tables(PAGE)
    found = []
    for source, event, target, attempts, crashes, fence, due, row in rows:
        words = re.findall(r"\w+", target)
        found.append(
            Line(
                sources=tuple(re.findall(r"\w+", source)),
                event=event,
                target=words[0],
                reason=words[1] if len(words) > 1 else None,
                changes={"attempts": attempts, "crashes": crashes, "fence": fence},
                due=due,
                row=row,
            )
        )
    return found


DECIDED: Final = [line for line in lines() if line.event not in ("enqueue", "claim", "run now", "delete")]


@pytest.mark.parametrize("line", DECIDED, ids=lambda line: line.event)
def test_a_line_is_what_is_decided(line: Line) -> None:
    for source in line.sources:
        before = _stand(source, line.event)
        transition = _decide(before, line.event)
        assert transition is not None
        state = transition.state
        assert state.status == line.target
        assert transition.dead_reason == line.reason
        for name, change in line.changes.items():
            assert getattr(state, name) == _changed(getattr(before, name), change), name
        assert _due(transition) == bool(line.due)
        assert (transition.due_in == timedelta(0)) == (line.due == "now")
        assert transition.event + (f": {transition.cause}" if ":" in line.row else "") == line.row


def test_every_outcome_and_act_has_its_lines() -> None:
    told = {(source, line.event) for line in lines() for source in line.sources}
    for event in [*OUTCOMES, "crash", "revive"]:
        mine = {e for _, e in told if e.startswith(event)}
        assert f"{event} (cancel requested)" in mine
        assert mine - {f"{event} (cancel requested)"}
    for status in JobStatus:
        state = JobState(status=status)
        for event, act in ACTS.items():
            assert (act(state) is not None) == ((status.value, event) in told), (status, event)
        assert lifecycle.run_now(state) == ((status.value, "run now") in told)
        assert lifecycle.may_delete(state) == ((status.value, "delete") in told)


def test_every_reason_is_explained() -> None:
    (_titles, *rows) = tables(PAGE)[1]
    assert {row[0].strip("`") for row in rows} == {reason.value for reason in DeadReason}
    assert {line.reason for line in lines()} - {None} == {reason.value for reason in DeadReason}


def test_the_picture_shows_the_table() -> None:
    drawn = re.findall(r"(\S+) --> (\S+?):", next(b.text for b in blocks(PAGE) if b.language == "mermaid"))
    told = {(source, line.target) for line in lines() for source in line.sources}
    told |= {("[*]", line.target) for line in lines() if not line.sources}
    assert set(drawn) == {(source, "[*]" if target == "gone" else target) for source, target in told}


async def test_an_enqueue_and_a_claim_change_what_the_table_says() -> None:
    enqueue, claim = (line for line in lines() if line.event in ("enqueue", "claim"))
    async with open_storage("sqlite:///:memory:") as storage:
        job_id = (await storage.jobs.enqueue(EnqueueRequest("send", queue="mail"))).id
        for line in (enqueue, claim):
            if line is claim:
                await storage.jobs.claim(make_claim())
            detail = await storage.jobs.get(job_id)
            assert detail is not None
            assert detail.row.status == line.target
            for name, change in line.changes.items():
                assert getattr(detail.row, name) == _changed(0, change), name


def _stand(source: str, event: str) -> JobState:
    if source != "in_progress":
        return JobState(status=JobStatus(source), attempts=2, crashes=1, fence=4)
    state = replace(RUNNING, cancel_requested="(cancel requested)" in event)
    if "crashes spent" in event:
        state = replace(state, crashes=CRASH.max_crashes - 1)
    if "attempts spent" in event:
        state = replace(state, attempts=state.max_attempts)
    return state


def _decide(state: JobState, event: str) -> Transition | None:
    word = re.split(r",| \(", event)[0]
    if word in ACTS:
        return ACTS[word](state)
    if word == "revive":
        return lifecycle.revive(state, CRASH)
    return lifecycle.settle(state, CRASH if word == "crash" else OUTCOMES[word])


def _changed(before: int, change: str) -> int:
    if not change:
        return before
    return before + int(change.replace("−", "-")) if change[0] in "+−" else int(change)


def _due(transition: Transition) -> bool:
    return transition.due_in is not None
