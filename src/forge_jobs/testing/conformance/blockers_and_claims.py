"""Whatever the state of the store: a job is explained as ready exactly if a worker that suits it takes it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.process import ProcessState
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.storage.types.rate_limit import Gate, RateLimitDeclaration
from forge_jobs.testing.conformance.arrange import UNSHRUNK, add, read, settle, take
from forge_jobs.testing.conformance.backend import Backend
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, OTHER_HOST, make_crashed, make_failed, make_process, make_throttled

KINDS: Final = ("a", "b", "paid", "rare")
HOSTS: Final = (HOST, OTHER_HOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job to be, and what befalls it before the question."""

    kind: str
    priority: int
    delay: int
    ttl: int | None
    fate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A worker process, as its heartbeat tells."""

    kinds: tuple[str, ...]
    alone_kinds: tuple[str, ...]
    slots: int
    state: ProcessState
    silent_s: int
    quiet: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A queue with everything around it. `tokens` are what the scope of the paid kind holds, None without a scope."""

    jobs: Sequence[Job]
    processes: Sequence[Process]
    tokens: int | None
    gated: bool
    dear: bool
    refill_per_s: float
    paused: str
    stopped: bool
    passes_s: int


def make_world(seed: int) -> World:
    """A world in which something is in the way of most jobs, and nothing in that of many.

    By a generator of ours: the library's own prefers the odd, and then no job is ever ready.
    """
    dice = Random(seed)

    def seldom(odds: float) -> bool:
        return dice.random() < odds

    dear = seldom(0.3)  # kinds of different cost, and tokens for the cheap one alone

    def job() -> Job:
        fates = ("runs", "failed", "failed at once", "crashed twice", "throttled")
        return Job(
            kind=dice.choices(KINDS, (1, 4, 4, 0) if dear else (2, 2, 4, 1))[0],
            priority=dice.randint(-1, 1),
            delay=dice.choice((3, 3, 60)) if seldom(0.4) else 0,
            ttl=dice.choice((4, 60)) if seldom(0.2) else None,
            fate=dice.choices(fates, (4, 4, 4, 4, 1))[0] if seldom(0.25) else "waits",
        )

    def process() -> Process:
        states = (ProcessState.DRAINING, ProcessState.FENCED)
        return Process(
            kinds=tuple(sorted(dice.sample(KINDS, dice.choice((2, 3, 4, 4))))),
            alone_kinds=("rare",) if seldom(0.3) else (),
            slots=dice.choice((0, 1, 1, 2, 2, 3, 4, 6)),
            state=dice.choice(states) if seldom(0.1) else ProcessState.RUNNING,
            silent_s=dice.choice((25, 31)) if seldom(0.1) else 0,
            quiet=seldom(0.05),
        )

    return World(
        jobs=[job() for _ in range(dice.randint(1, 8))],
        processes=[process() for _ in range(dice.choice((1, 1, 2)))],
        tokens=1 if dear else None if seldom(0.1) else dice.choice((0, 1, 2, 2, 3)),
        gated=dear or seldom(0.6),
        dear=dear,
        refill_per_s=dice.choice((0, 0.001, 0.001)),
        paused=dice.choice(("everywhere", "first")) if seldom(0.1) else "no",
        stopped=seldom(0.05),
        passes_s=dice.choice((0, 3, 5)),
    )


class TestBlockersAgreeWithClaims:
    """Each world is a queue of its own in one store."""

    def test_ready_is_what_the_next_claims_take(self, backend: Backend) -> None:
        _try(backend, settings(max_examples=180 if backend.one_host else 60, derandomize=True, phases=UNSHRUNK))

    @pytest.mark.slow
    @pytest.mark.timeout(1_800)
    def test_ready_is_what_the_next_claims_take_in_many_worlds(self, backend: Backend) -> None:
        _try(backend, settings(max_examples=3_000, print_blob=True))


def _try(backend: Backend, profile: settings) -> None:
    clock, numbers, seen = ManualClock(), count(), Counter[str]()
    with asyncio.Runner() as runner:
        opening = backend.open(clock)
        storage = runner.run(opening.__aenter__())
        beaters = [Beater(storage) for _ in HOSTS]

        @settings(profile, deadline=None, suppress_health_check=list(HealthCheck))
        @given(seed=st.integers(0, 2**32))
        def agree(seed: int) -> None:
            stage = _Stage(storage, clock, beaters, f"world-{next(numbers)}", make_world(seed))
            seen.update(runner.run(stage.play()))

        try:
            agree()
            assert min(seen["ready"], seen["alone"], seen["waits"]) > 3, seen  # else nothing was tried
        finally:
            for beater in beaters:
                beater.close()
            runner.run(opening.__aexit__(None, None, None))


class _Stage:
    """One world in the store."""

    def __init__(
        self, storage: Storage, clock: ManualClock, beaters: Sequence[Beater], queue: str, world: World
    ) -> None:
        self.storage = storage
        self.clock = clock
        self.beaters = beaters
        self.queue = queue
        self.scope = f"scope-{queue}"
        self.world = world
        costs = {"paid": 1, "b": 2} if world.dear else {"paid": 1}
        gates = [Gate(kind=kind, scope=self.scope, cost=cost) for kind, cost in costs.items()]
        self.gates = tuple(gates) if world.gated else ()
        self.ids: list[JobId] = []

    async def play(self) -> Counter[str]:
        """Ask, then do; how many jobs were ready, to run alone, and neither."""
        await self._build()
        ready = {job_id for job_id in self.ids if "ready" in await self._codes(job_id)}
        alone = {job_id for job_id in ready if await self._is_alone(job_id)}
        able = [number for number in range(len(self.world.processes)) if self._may_claim(number)]
        if len(self.world.processes) == 1:
            taken = await self._take(0, alone=bool(alone)) if able else set()
            assert taken == (alone or ready), (self.world, ready, taken)
        else:
            await self._two(able, ready, alone)
        for job_id in self.ids:
            await self._end(job_id)
        for host in HOSTS:
            await self.storage.processes.remove(host)
        return Counter(ready=len(ready - alone), alone=len(alone), waits=len(self.ids) - len(ready))

    async def _two(self, able: Sequence[int], ready: set[JobId], alone: set[JobId]) -> None:
        """What the first takes was ready, and what was ready is taken by one of them, unless it was paid away."""
        taken: set[JobId] = set()
        for place, number in enumerate(able):
            found = await self._take(number)
            assert place or found <= ready, (self.world, ready, found)
            taken |= found
        if not self.gates:
            assert ready - alone <= taken, (self.world, ready, taken)

    # What the world is made of

    async def _build(self) -> None:
        storage, world = self.storage, self.world
        await storage.queues.ensure(self.queue, QueueChange(cool_down=True))
        if world.tokens is not None:
            await storage.rate_limits.ensure(self._limit())
            for _ in range(5 - world.tokens):
                await storage.rate_limits.acquire(self.scope)
        for job in world.jobs:
            self.ids.append(await self._befall(job))
        await self._beat_all()
        if world.stopped:
            await storage.queues.change(self.queue, QueueChange(max_workers=0))
        if world.paused != "no":
            await storage.queues.pause(self.queue, process=HOST if world.paused == "first" else None)

    def _limit(self) -> RateLimitDeclaration:
        return RateLimitDeclaration(scope=self.scope, capacity=5, refill_per_s=self.world.refill_per_s)

    async def _befall(self, job: Job) -> JobId:
        """Add the job and let its fate come true, while no other can be in its way."""
        runs = job.fate != "waits"
        delay, ttl = (0, None) if runs else (job.delay, job.ttl)
        first = -1_000 if runs else job.priority
        job_id = await add(
            self.storage, queue=self.queue, kind=job.kind, priority=first, delay=delay, ttl=ttl, max_attempts=9
        )
        if not runs:
            return job_id
        for _ in range(2 if job.fate == "crashed twice" else 1):
            (record,) = await take(self.storage, queue=self.queue, kinds=(job.kind,), host_id=HOST) or (None,)
            if record is None or record.id != job_id:  # the queue cools down, or another of its kind stands first
                if record is not None:
                    await settle(self.storage, record, make_failed(delay=60))
                return job_id
            match job.fate:
                case "failed":
                    await settle(self.storage, record, make_failed(delay=60))
                case "failed at once":
                    await settle(self.storage, record, make_failed(delay=0))
                case "crashed twice":
                    await settle(self.storage, record, make_crashed())
                case "throttled":
                    await settle(self.storage, record, make_throttled(4))
                case _:
                    pass
        return job_id

    async def _beat_all(self) -> None:
        """Let the processes beat, so that each has been silent for as long as it should; the healthy ones last."""
        processes = self.world.processes
        longest = max(process.silent_s for process in processes)
        for second in range(longest, -1, -1):
            for number, process in enumerate(processes):
                if process.silent_s == second and second:
                    await self._beat(number)
            self.clock.advance(1 if second else self.world.passes_s)
        for number, process in enumerate(processes):
            if not process.silent_s:
                await self._beat(number)

    async def _beat(self, number: int) -> None:
        process = self.world.processes[number]
        info = make_process(
            HOSTS[number],
            queues=(self.queue,),
            kinds=process.kinds,
            slots={self.queue: process.slots},
            state=process.state,
            quiet=process.quiet,
            gates=self.gates,
            alone_kinds=process.alone_kinds,
        )
        await self.beaters[number].beat(info)

    # Asking and doing

    async def _codes(self, job_id: JobId) -> list[str]:
        return [str(one.code) for one in await self.storage.jobs.explain(job_id)]

    async def _is_alone(self, job_id: JobId) -> bool:
        row = await read(self.storage, job_id)
        return row.crashes == 2 or any(row.kind in one.alone_kinds for one in self.world.processes)

    def _may_claim(self, number: int) -> bool:
        """Whether this process asks for jobs at all: what the store does not see to itself."""
        process, world = self.world.processes[number], self.world
        silent = process.silent_s + (world.passes_s if process.silent_s else 0)
        told = process.state is ProcessState.RUNNING and not process.quiet and not world.stopped
        return told and silent < 20 and process.slots > 0

    async def _idle(self, number: int) -> int:
        rows = [await read(self.storage, job_id) for job_id in self.ids]
        running = sum(row.status == "in_progress" and row.host_id == HOSTS[number] for row in rows)
        return max(self.world.processes[number].slots - running, 0)

    async def _take(self, number: int, *, alone: bool = False) -> set[JobId]:
        process = self.world.processes[number]
        room = min(await self._idle(number), 1 if alone else 9)
        if not room:
            return set()
        jobs = await take(
            self.storage,
            room,
            queue=self.queue,
            kinds=process.kinds,
            host_id=HOSTS[number],
            gates=tuple(gate for gate in self.gates if gate.kind in process.kinds),
            alone=alone,
            alone_kinds=process.alone_kinds,
        )
        return {job.id for job in jobs}

    async def _end(self, job_id: JobId) -> None:
        """Leave nothing running that would count for the next world."""
        await self.storage.jobs.cancel(job_id)
        detail = await self.storage.jobs.get(job_id)
        if detail is not None and detail.row.status == "in_progress":
            await self.storage.jobs.finalize(job_id, detail.row.fence, Done())
