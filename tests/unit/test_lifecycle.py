"""The lifecycle's decisions against the table of what may become of a job, written out once more by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.storage import lifecycle
from forge_jobs.storage.lifecycle import CoolDown, JobState, Transition
from forge_jobs.storage.types.event import EventType
from forge_jobs.storage.types.finalize import Done, FinalizeOutcome, Released
from forge_jobs.storage.types.job import DeadReason, ErrorKind, JobStatus
from forge_jobs.testing.factories import make_crashed, make_dead, make_failed, make_throttled

RUNNING = JobState(status=JobStatus.IN_PROGRESS, attempts=2, max_attempts=5, crashes=0, throttles=3, fence=7)
ASKED = replace(RUNNING, cancel_requested=True)
LAST = replace(RUNNING, attempts=5)
OVER = replace(RUNNING, attempts=6)  # max_attempts was lowered while it ran
SEC = timedelta(seconds=1)

OUTCOMES: dict[str, FinalizeOutcome] = {
    "Done": Done(),
    "Failed": make_failed(delay=9),
    "Dead": make_dead(),
    "Throttled": make_throttled(9),
    "Released": Released(),
    "Crashed": make_crashed(delay=9),
}

THROTTLED = ("pending", None, "retried", "throttled", 9 * SEC)
# start, outcome -> status, dead reason, event, cause, due in, and the changed numbers
SETTLEMENTS: list[tuple[str, JobState, str, tuple[Any, ...], dict[str, int]]] = [
    ("running", RUNNING, "Done", ("done", None, "completed", None, None), {"throttles": 0}),
    ("running", RUNNING, "Failed", ("failed", None, "retried", "failed", 9 * SEC), {}),
    ("running", RUNNING, "Dead", ("dead", "rejected", "failed", "rejected", None), {}),
    ("running", RUNNING, "Throttled", THROTTLED, {"attempts": 1, "throttles": 4}),
    ("running", RUNNING, "Released", ("pending", None, "released", None, None), {"attempts": 1}),
    ("running", RUNNING, "Crashed", ("failed", None, "retried", "crashed", 9 * SEC), {"crashes": 1}),
    ("last attempt", LAST, "Done", ("done", None, "completed", None, None), {"throttles": 0}),
    ("last attempt", LAST, "Failed", ("dead", "exhausted", "failed", "exhausted", None), {}),
    ("last attempt", LAST, "Dead", ("dead", "rejected", "failed", "rejected", None), {}),
    ("last attempt", LAST, "Throttled", THROTTLED, {"attempts": 4, "throttles": 4}),
    ("last attempt", LAST, "Released", ("pending", None, "released", None, None), {"attempts": 4}),
    ("last attempt", LAST, "Crashed", ("dead", "exhausted", "failed", "exhausted", None), {"crashes": 1}),
    ("over the budget", OVER, "Failed", ("dead", "exhausted", "failed", "exhausted", None), {}),
    ("asked to stop", ASKED, "Done", ("done", None, "completed", None, None), {"throttles": 0}),
    ("asked to stop", ASKED, "Failed", ("dead", "cancelled", "failed", "cancelled", None), {}),
    ("asked to stop", ASKED, "Dead", ("dead", "cancelled", "failed", "cancelled", None), {}),
    ("asked to stop", ASKED, "Throttled", ("dead", "cancelled", "failed", "cancelled", None), {}),
    ("asked to stop", ASKED, "Released", ("dead", "cancelled", "failed", "cancelled", None), {}),
    ("asked to stop", ASKED, "Crashed", ("dead", "cancelled", "failed", "cancelled", None), {"crashes": 1}),
]  # fmt: skip


class TestSettle:
    @pytest.mark.parametrize(
        ("start", "outcome", "expected", "numbers"),
        [row[1:] for row in SETTLEMENTS],
        ids=[f"{name}, {outcome}" for name, _, outcome, _, _ in SETTLEMENTS],
    )
    def test_an_outcome_becomes(
        self, start: JobState, outcome: str, expected: tuple[Any, ...], numbers: dict[str, int]
    ) -> None:
        made = lifecycle.settle(start, OUTCOMES[outcome])
        assert (made.state.status, made.dead_reason, made.event, made.cause, made.due_in) == expected
        assert _numbers(made.state) == {**_numbers(start), **numbers}

    def test_the_table_is_complete(self) -> None:
        for name in ("running", "last attempt", "asked to stop"):
            assert {outcome for start, _, outcome, _, _ in SETTLEMENTS if start == name} == set(OUTCOMES)

    def test_an_attempt_is_never_given_back_below_zero(self) -> None:
        none = replace(RUNNING, attempts=0)
        assert lifecycle.settle(none, Released()).state.attempts == 0
        assert lifecycle.settle(none, make_throttled()).state.attempts == 0

    def test_a_cancelled_job_says_so_and_keeps_what_went_wrong(self) -> None:
        error = lifecycle.settle(ASKED, make_failed("disk on fire", traceback="Traceback")).error
        assert error is not None
        assert (error.kind, error.traceback) == (ErrorKind.CANCELLED, "Traceback")
        assert "disk on fire" in error.message

    def test_a_release_of_a_cancelled_job_is_told_as_well(self) -> None:
        error = lifecycle.settle(ASKED, Released()).error
        assert error is not None
        assert error.kind is ErrorKind.CANCELLED

    @pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.IN_PROGRESS])
    def test_only_a_running_job_can_be_settled(self, status: JobStatus) -> None:
        with pytest.raises(AssertionError):
            lifecycle.settle(replace(RUNNING, status=status), Done())


class TestCrash:
    @pytest.mark.parametrize(
        ("crashes", "attempts", "max_crashes", "status", "reason"),
        [
            (0, 1, 3, "failed", None),
            (1, 2, 3, "failed", None),
            (2, 3, 3, "dead", "crashed"),
            (0, 1, 1, "dead", "crashed"),
            (0, 5, 3, "dead", "exhausted"),
            (2, 5, 3, "dead", "crashed"),
            (9, 1, 3, "dead", "crashed"),
        ],
    )
    def test_crashes_are_bounded_whatever_attempts_remain(
        self, crashes: int, attempts: int, max_crashes: int, status: str, reason: str | None
    ) -> None:
        start = replace(RUNNING, crashes=crashes, attempts=attempts)
        made = lifecycle.settle(start, make_crashed(max_crashes=max_crashes))
        assert (made.state.status, made.dead_reason, made.state.crashes) == (status, reason, crashes + 1)

    @pytest.mark.parametrize(("crashes", "alone"), [(0, False), (1, True)])
    def test_a_job_whose_next_crash_would_be_its_last_runs_alone(self, crashes: int, alone: bool) -> None:
        made = lifecycle.settle(replace(RUNNING, crashes=crashes), make_crashed(max_crashes=3))
        assert made.state.alone is alone

    @pytest.mark.parametrize("outcome", [make_failed(), make_throttled(), Released()], ids=lambda o: type(o).__name__)
    def test_it_runs_alone_until_it_ends(self, outcome: FinalizeOutcome) -> None:
        assert lifecycle.settle(replace(RUNNING, crashes=2, alone=True), outcome).state.alone

    @pytest.mark.parametrize("start", [RUNNING, LAST, ASKED], ids=["running", "last attempt", "asked to stop"])
    def test_a_revival_is_a_crash_under_a_new_fence(self, start: JobState) -> None:
        crashed, revived = (
            lifecycle.settle(start, make_crashed(delay=9)),
            lifecycle.revive(start, make_crashed(delay=9)),
        )
        assert revived.state == replace(crashed.state, fence=start.fence + 1)
        assert (revived.dead_reason, revived.due_in, revived.event) == (
            crashed.dead_reason, crashed.due_in, crashed.event,
        )  # fmt: skip

    def test_a_revival_tells_that_the_worker_was_lost(self) -> None:
        assert lifecycle.revive(RUNNING, make_crashed()).cause == "lost_worker"


class TestActs:
    """Cancel, expire, supersede, retry, run now and delete, for every status."""

    @pytest.mark.parametrize("status", JobStatus)
    @pytest.mark.parametrize(
        ("decide", "reason", "event", "kind"),
        [
            (lifecycle.cancel, DeadReason.CANCELLED, EventType.FAILED, None),
            (lifecycle.expire, DeadReason.EXPIRED, EventType.FAILED, ErrorKind.EXPIRED),
            (lifecycle.supersede, DeadReason.SUPERSEDED, EventType.SUPERSEDED, None),
        ],
        ids=["cancel", "expire", "supersede"],
    )
    def test_only_a_waiting_job_can_be_ended(
        self, status: JobStatus, decide: Any, reason: DeadReason, event: EventType, kind: ErrorKind | None
    ) -> None:
        start = replace(RUNNING, status=status)
        made: Transition | None = decide(start)
        if status not in (JobStatus.PENDING, JobStatus.FAILED):
            assert made is None
            return
        assert made is not None
        assert made.state == replace(start, status=JobStatus.DEAD)
        assert (made.dead_reason, made.event, made.due_in, made.finished) == (reason, event, None, True)
        assert (made.error and made.error.kind) == kind

    @pytest.mark.parametrize("status", JobStatus)
    def test_only_a_failed_or_dead_job_can_be_retried(self, status: JobStatus) -> None:
        start = replace(RUNNING, status=status, crashes=2, alone=True, cancel_requested=True)
        made = lifecycle.retry(start)
        if status not in (JobStatus.FAILED, JobStatus.DEAD):
            assert made is None
            return
        assert made is not None
        assert made.state == replace(
            start, status=JobStatus.PENDING, attempts=0, crashes=0, alone=False, cancel_requested=False
        )
        assert (made.event, made.due_in, made.dead_reason, made.error) == (EventType.REQUEUED, 0 * SEC, None, None)

    @pytest.mark.parametrize("status", JobStatus)
    def test_only_a_pending_job_can_be_run_now(self, status: JobStatus) -> None:
        assert lifecycle.run_now(replace(RUNNING, status=status)) is (status == "pending")

    @pytest.mark.parametrize("status", JobStatus)
    def test_any_job_but_a_running_one_can_be_deleted(self, status: JobStatus) -> None:
        assert lifecycle.may_delete(replace(RUNNING, status=status)) is (status != "in_progress")


class TestEveryTransition:
    @given(
        start=st.builds(
            JobState,
            status=st.just(JobStatus.IN_PROGRESS),
            attempts=st.integers(0, 1000),
            max_attempts=st.integers(1, 1000),
            crashes=st.integers(0, 100),
            throttles=st.integers(0, 1000),
            fence=st.integers(1, 10**6),
            cancel_requested=st.booleans(),
        ),
        outcome=st.sampled_from(list(OUTCOMES.values())),
    )
    def test_holds_what_holds_for_all(self, start: JobState, outcome: FinalizeOutcome) -> None:
        made = lifecycle.settle(start, outcome)
        assert (made.dead_reason is not None) == (made.state.status is JobStatus.DEAD)
        assert made.state.status is not JobStatus.IN_PROGRESS
        assert (made.state.status is JobStatus.DONE) == isinstance(outcome, Done)
        assert made.state.fence == start.fence
        assert 0 <= made.state.attempts <= start.attempts
        assert (made.state.crashes - start.crashes) == (type(outcome).__name__ == "Crashed")
        waits = made.state.status in lifecycle.WAITING
        assert made.finished is not waits
        assert made.due_in is None or waits


class TestCoolDown:
    CLOSED = CoolDown(throttle_attempts=4, open_for=None)
    LAPSED = CoolDown(throttle_attempts=4, open_for=-5 * SEC)
    OPEN = CoolDown(throttle_attempts=4, open_for=20 * SEC)

    @pytest.mark.parametrize("window", [CLOSED, LAPSED, CoolDown(throttle_attempts=4, open_for=0 * SEC)])
    def test_a_guess_opens_a_window_and_is_counted(self, window: CoolDown) -> None:
        assert lifecycle.cool_down(window, make_throttled(9, hinted=False)) == CoolDown(
            throttle_attempts=5, open_for=9 * SEC
        )

    @pytest.mark.parametrize(("count", "then"), [(0, 1), (1, 1), (4, 4), (30, 30)])
    def test_a_hint_counts_at_most_to_one(self, count: int, then: int) -> None:
        made = lifecycle.cool_down(replace(self.CLOSED, throttle_attempts=count), make_throttled(9))
        assert made == CoolDown(throttle_attempts=then, open_for=9 * SEC)

    def test_the_count_ends_at_thirty(self) -> None:
        made = lifecycle.cool_down(replace(self.CLOSED, throttle_attempts=30), make_throttled(9, hinted=False))
        assert made is not None
        assert made.throttle_attempts == 30

    @pytest.mark.parametrize("throttled", [make_throttled(9), make_throttled(20), make_throttled(99, hinted=False)])
    def test_an_open_window_is_left_alone(self, throttled: Any) -> None:
        assert lifecycle.cool_down(self.OPEN, throttled) is None

    def test_a_longer_hint_extends_an_open_window(self) -> None:
        made = lifecycle.cool_down(self.OPEN, make_throttled(99))
        assert made == CoolDown(throttle_attempts=4, open_for=99 * SEC)


def _numbers(state: JobState) -> dict[str, int]:
    return {
        "attempts": state.attempts,
        "max_attempts": state.max_attempts,
        "crashes": state.crashes,
        "throttles": state.throttles,
        "fence": state.fence,
    }
