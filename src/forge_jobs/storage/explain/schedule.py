"""Why a schedule does not fire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from forge_jobs.storage.explain.words import at, brief, count
from forge_jobs.storage.types.blocker import Blocker, BlockerCode, most_final_first
from forge_jobs.storage.types.schedule import Schedule, ScheduleState, Tick, TickOutcome
from forge_jobs.text import span

OVERDUE: Final = timedelta(seconds=30)
"""A tick that is late by this much says that whoever fires schedules does not get on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFacts:
    """A schedule, its newest tick, and who fires schedules: the label of the holder of the lease, how many processes
    live, and whether that loop made progress lately."""

    schedule: Schedule
    now: datetime
    last_tick: Tick | None
    leader: str | None
    leader_moves: bool
    live_processes: int


def unknown_schedule(name: str) -> list[Blocker]:
    """What there is to say of a schedule that is not there."""
    return [
        Blocker(
            code=BlockerCode.UNKNOWN_SCHEDULE,
            text=f"there is no schedule {name}.",
            remedy="forge-jobs schedules list shows those that are there",
        )
    ]


def schedule_story(facts: ScheduleFacts) -> list[Blocker]:
    """What keeps the schedule from making its next job."""
    found = _state(facts.schedule)
    if not found:
        found = [*_leader(facts), *_errors(facts.schedule)]
    found += _held(facts)
    if facts.schedule.state is ScheduleState.ACTIVE:
        found.append(_next(facts))
    return most_final_first(found)


def _state(schedule: Schedule) -> list[Blocker]:
    name = schedule.name
    match schedule.state:
        case ScheduleState.DISABLED:
            edit = schedule.edited.get("enabled")
            by = f" by {edit.by} since {at(edit.at)}" if edit else " in the code that declares it"
            return [
                Blocker(
                    code=BlockerCode.SCHEDULE_DISABLED,
                    text=f"schedule {name} is turned off{by}.",
                    since=edit.at if edit else None,
                    remedy=f"forge-jobs schedules enable {name}",
                )
            ]
        case ScheduleState.INVALID:
            return [
                Blocker(
                    code=BlockerCode.SCHEDULE_INVALID,
                    text=f"schedule {name} cannot be read any more: {_error(schedule)}.",
                    since=schedule.updated_at,
                    remedy=f"forge-jobs schedules set {name} --expr or --zone",
                )
            ]
        case ScheduleState.FINISHED:
            ends = schedule.settings.ends_at
            why = f"it ended at {at(ends)}" if ends else "its expression has no time left"
            return [
                Blocker(
                    code=BlockerCode.SCHEDULE_FINISHED,
                    text=f"schedule {name} is finished: {why}.",
                    since=ends,
                    remedy=f"forge-jobs schedules set {name} --ends-at later, or remove it",
                )
            ]
        case ScheduleState.ACTIVE:
            return []


def _leader(facts: ScheduleFacts) -> list[Blocker]:
    late = facts.schedule.next_fire_at is not None and facts.now - facts.schedule.next_fire_at > OVERDUE
    if facts.leader is None:
        who = (
            f"none of {count(facts.live_processes, 'live worker')} fires schedules"
            if facts.live_processes
            else "no worker is alive, so nobody fires schedules"
        )
        remedy = "see the workers' logs for loop_fault" if facts.live_processes else "start a worker"
        return [Blocker(code=BlockerCode.NO_LEADER, text=f"{who}.", remedy=remedy)]
    if not facts.leader_moves or late:
        return [
            Blocker(
                code=BlockerCode.LOOP_DEAD,
                text=f"{facts.leader} is to fire schedules and does not get on.",
                remedy=f"see the log of {facts.leader} for loop_fault; restarting it lets another take over",
            )
        ]
    return []


def _errors(schedule: Schedule) -> list[Blocker]:
    if not schedule.consecutive_errors:
        return []
    return [
        Blocker(
            code=BlockerCode.SCHEDULE_FAILING,
            text=f"its tick failed {count(schedule.consecutive_errors, 'time')} in a row: {_error(schedule)}.",
            remedy="see to what it says; it is tried again every few seconds",
        )
    ]


def _error(schedule: Schedule) -> str:
    return brief(schedule.last_error) if schedule.last_error else "no error was kept"


def _held(facts: ScheduleFacts) -> list[Blocker]:
    tick = facts.last_tick
    if tick is None or tick.outcome is not TickOutcome.SKIPPED or tick.job_id is None:
        return []
    return [
        Blocker(
            code=BlockerCode.HELD,
            text=f"its tick of {at(tick.fire_at)} made no job ({tick.reason}): job {tick.job_id} holds its key.",
            since=tick.at,
            remedy=f"forge-jobs jobs explain {tick.job_id}",
        )
    ]


def _next(facts: ScheduleFacts) -> Blocker:
    due = facts.schedule.next_fire_at
    if due is None:
        text = "its next tick is not known yet: whoever fires schedules finds it with the next pass."
    elif due > facts.now:
        text = f"its next tick is in {span(due - facts.now)}, at {at(due)}."
    else:
        text = f"its tick of {at(due)} is due for {span(facts.now - due)}."
    return Blocker(code=BlockerCode.SCHEDULED, text=text, until=due)
