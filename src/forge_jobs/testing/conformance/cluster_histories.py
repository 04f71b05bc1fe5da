"""Random histories of a cluster that shares one total, checked after every step.

Processes start, ask for slots, close them with and without a job in them, claim, finish, freeze for a while, die and
leave; the rebalancer and the reaper pass by at any moment. Whatever happens, and however unfair their wishes are:
never more jobs run than the total. When it is quiet again the total is split fairly, and all of it is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_jobs.clock import ManualClock
from forge_jobs.runtime.loops.rebalance import rebalance_once
from forge_jobs.storage.types.finalize import Applied, Done, Lost
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.process import Claimed
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import STALE, UNSHRUNK, add_many
from forge_jobs.testing.conformance.backend import Backend
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import QUEUE, make_claim, make_process

T = TypeVar("T")
BEAT_S: Final = 11
JOBS: Final = 30
MOST: Final = 3
"""Processes at a time; few, so that what happens to one matters to the others."""

picks = st.integers(0, MOST - 1)
wishes = st.sampled_from([None, None, 9, 9, 5, 3, 1, 0])
steps = st.one_of(
    st.tuples(st.just("scale"), picks, wishes),
    st.tuples(st.just("claim"), picks, st.integers(1, 5)),
    st.tuples(st.just("finish"), picks, picks),
    st.tuples(st.just("look_after"), st.sampled_from(["rebalance", "reap"])),
    st.tuples(st.just("pass_time"), st.sampled_from([1, 3, 3])),
    st.tuples(st.sampled_from(["freeze", "thaw"]), picks),
    st.tuples(st.just("be_away"), picks, wishes),
    st.tuples(st.sampled_from(["die", "leave"]), picks),
    st.tuples(st.just("start"), wishes),
    st.tuples(st.just("change_the_total"), st.integers(0, 8)),
)
"""A method of `History` and its arguments."""


@dataclass
class Process:
    """A worker process as it sees itself."""

    host_id: str
    idle: int = 0
    busy: list[Claimed] = field(default_factory=list)
    closing: list[Claimed] = field(default_factory=list)
    """Jobs in slots that were closed."""
    frozen: bool = False
    silent_s: int = 0
    doubts: bool = False
    """It was silent for so long that others may have its slots."""

    @property
    def staying(self) -> int:
        return self.idle + len(self.busy)

    def shrink_to(self, slots: int) -> None:
        """Close idle slots first; a busy one goes on until its job ends."""
        self.idle = max(min(self.idle, slots - len(self.busy)), 0)
        while len(self.busy) > slots:
            self.closing.append(self.busy.pop())


class History:
    """One random history of a store."""

    def __init__(self, backend: Backend, total: int) -> None:
        self.clock = ManualClock()
        self.loop = asyncio.new_event_loop()
        self.opened = backend.open(self.clock)
        self.storage = self._do(self.opened.__aenter__())
        self.beater = Beater(self.storage)
        self.processes: list[Process] = []
        self.dead: list[Process] = []
        self.started = 0
        self.total = self.ceiling = total
        self._do(self.storage.queues.ensure(QUEUE, QueueChange(max_workers=total)))
        self._do(add_many(self.storage, JOBS))
        self.start(None)
        self.start(None)

    def close(self) -> None:
        self.beater.close()
        self._do(self.opened.__aexit__(None, None, None))
        self.loop.close()

    # What happens

    def scale(self, pick: int, wish: int | None) -> None:
        """Bring the slots of a process to its share, or to whatever it takes for that."""
        if self.awake:
            self._scale(self._pick(pick), wish)

    def claim(self, pick: int, limit: int) -> None:
        if not self.awake:
            return
        process = self._pick(pick)
        limit = min(limit, process.idle)
        if limit and not process.doubts:
            claim = self._do(self.storage.jobs.claim(make_claim(limit, host_id=process.host_id)))
            process.idle -= len(claim.jobs)
            process.busy += [Claimed(job.id, job.fence) for job in claim.jobs]

    def finish(self, pick: int, which: int) -> None:
        running = [process for process in self.awake if process.busy or process.closing]
        if running:
            process = running[pick % len(running)]
            claims = process.busy + process.closing
            self._finish(process, claims[which % len(claims)])

    def look_after(self, what: str) -> None:
        if what == "rebalance":
            self._do(rebalance_once(self.storage, STALE))
        else:
            self._do(self.storage.jobs.revive_stale(STALE, max_crashes=lambda kind: 100))

    def pass_time(self, beats: int) -> None:
        """After three beats of the others a frozen process is silent for too long."""
        for _ in range(beats):
            self.clock.advance(BEAT_S)
            for process in self.processes:
                if process.frozen:
                    process.silent_s += BEAT_S
                else:
                    self._beat(process)

    def freeze(self, pick: int) -> None:
        if self.awake:
            process = self._pick(pick)
            process.frozen, process.silent_s = True, 0

    def thaw(self, pick: int) -> None:
        frozen = [process for process in self.processes if process.frozen]
        if frozen:
            process = frozen[pick % len(frozen)]
            process.frozen = False
            process.doubts = process.doubts or process.silent_s >= STALE.total_seconds()
            self._beat(process)

    def be_away(self, pick: int, wish: int | None) -> None:
        """One process is frozen for so long that the others may take its slots, and do."""
        if self.awake:
            absent = self._pick(pick)
            self.freeze(pick)
            self.pass_time(3)
            for process in self.awake:
                self._scale(process, wish)
            self.thaw([process for process in self.processes if process.frozen].index(absent))

    def die(self, pick: int) -> None:
        if self.processes:
            self.dead.append(self.processes.pop(pick % len(self.processes)))

    def leave(self, pick: int) -> None:
        if self.awake:
            process = self._pick(pick)
            for claimed in process.busy + process.closing:
                self._finish(process, claimed)
            self.processes.remove(process)
            self._do(self.storage.processes.remove(process.host_id))

    def start(self, wish: int | None) -> None:
        if len(self.processes) < MOST:
            self.started += 1
            process = Process(f"01J00000000000000000000{self.started:03}")
            self.processes.append(process)
            self._beat(process)
            self._scale(process, wish)

    def change_the_total(self, total: int) -> None:
        self.total, self.ceiling = total, max(self.ceiling, total)
        self._do(self.storage.queues.change(QUEUE, QueueChange(max_workers=total)))

    # What must be true

    def no_more_jobs_run_than_the_total(self) -> None:
        """After a total was lowered: no more than it allowed before, until what was too many has closed."""
        counted = sum(self._owned(process) for process in self.dead)
        possible = counted
        for process in self.processes:
            open_slots = process.staying + len(process.closing)
            is_cut_off = process.frozen or process.doubts
            counted += self._owned(process) if is_cut_off else open_slots
            possible += open_slots
        assert counted <= self.ceiling
        if possible <= self.total:
            self.ceiling = self.total

    def it_is_fair_when_quiet(self) -> None:
        while any(process.frozen for process in self.processes):
            self.thaw(0)
        if not self.processes:
            self.start(None)
        self.pass_time(4)  # the dead are found dead, and their jobs are taken back
        self.look_after("reap")
        self.look_after("rebalance")
        for process in self.processes:
            for claimed in process.busy + process.closing:
                self._finish(process, claimed)
        for _ in range(2):  # who must shrink, then who may grow
            for process in self.processes:
                self._scale(process, None)
        slots = [process.idle for process in self.processes]
        assert sum(slots) == self.total, slots
        assert max(slots) - min(slots) <= 1, slots
        assert self._do(rebalance_once(self.storage, STALE)).written == []

    # How it is done

    @property
    def awake(self) -> list[Process]:
        return [process for process in self.processes if not process.frozen]

    def _pick(self, pick: int) -> Process:
        return self.awake[pick % len(self.awake)]

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def _beat(self, process: Process) -> None:
        """Beat, and drop the jobs that have another owner by now."""
        answer = self.beater.beat_and_wait(make_process(process.host_id), *process.busy, *process.closing)
        kept = [claimed for claimed in process.busy if claimed not in answer.lost]
        process.idle += len(process.busy) - len(kept)
        process.busy = kept
        process.closing = [claimed for claimed in process.closing if claimed not in answer.lost]

    def _scale(self, process: Process, wish: int | None) -> None:
        if wish is None:
            standing = self._do(self.storage.shares.standing(QUEUE, process.host_id, STALE))
            wish = standing.share or 0
        process.shrink_to(wish)
        allowed = self._do(
            self.storage.shares.open_slots(
                QUEUE,
                process.host_id,
                staying=process.staying,
                closing=len(process.closing),
                wanted=wish,
                stale_after=STALE,
            )
        )
        process.doubts = False
        process.shrink_to(allowed)
        process.idle += max(allowed - process.staying, 0)

    def _finish(self, process: Process, claimed: Claimed) -> None:
        settled = self._do(self.storage.jobs.finalize(claimed.job_id, claimed.fence, Done()))
        assert isinstance(settled, Applied | Lost), settled
        if claimed in process.busy:
            process.busy.remove(claimed)
            process.idle += 1
        else:
            process.closing.remove(claimed)

    def _owned(self, process: Process) -> int:
        """Running jobs that the store takes for this process's."""
        chosen = JobFilter(
            statuses=("in_progress",), ids=tuple(claimed.job_id for claimed in process.busy + process.closing)
        )
        if not chosen.ids:
            return 0
        page = self._do(self.storage.jobs.list_jobs(chosen, with_total=False))
        return sum(row.host_id == process.host_id for row in page.items)


class TestClusterHistories:
    """On the backend under test: the same short histories in every run, and long new ones when asked."""

    def test_whatever_happens_no_more_jobs_run_than_the_total(self, backend: Backend) -> None:
        _run(backend, settings(max_examples=60 if backend.one_host else 10, derandomize=True, phases=UNSHRUNK))

    @pytest.mark.slow
    @pytest.mark.timeout(1_800)
    def test_whatever_happens_for_long_no_more_jobs_run_than_the_total(self, backend: Backend) -> None:
        _run(backend, settings(max_examples=2_000, print_blob=True))


def _run(backend: Backend, profile: settings) -> None:
    @settings(profile, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(1, 8), st.lists(steps, min_size=30, max_size=100))
    def histories(total: int, happens: list[tuple[Any, ...]]) -> None:
        history = History(backend, total)
        try:
            for name, *arguments in happens:
                getattr(history, name)(*arguments)
                history.no_more_jobs_run_than_the_total()
            history.it_is_fair_when_quiet()
        finally:
            history.close()

    histories()
