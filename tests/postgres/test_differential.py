"""One generated program, run on SQLite and on PostgreSQL: every answer and every row must be equal.

The program is a list of verbs with their arguments; both stores read the same clock, and chance (the jitter of a
backoff) is the same for both. Nothing is compared with a model: the two backends are each other's judge.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge_jobs import EnqueueRequest, Storage, StoreConfig, open_storage
from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId
from forge_jobs.storage.error import StorageError
from forge_jobs.storage.types.finalize import Done as IsDone
from forge_jobs.storage.types.finalize import Finalize, FinalizeOutcome, Released
from forge_jobs.storage.types.job import JobFilter, JobRecord
from forge_jobs.storage.types.process import Claimed
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import UNSHRUNK
from forge_jobs.testing.factories import (
    HOST,
    OTHER_HOST,
    make_claim,
    make_crashed,
    make_dead,
    make_failed,
    make_process,
    make_throttled,
)
from forge_jobs.testing.postgres import Server

KINDS = ("blue", "red", "a.b:c-d")
QUEUES = ("alpha", "beta")
STALE = timedelta(seconds=30)
OUTCOMES: dict[str, Callable[[], FinalizeOutcome]] = {
    "done": IsDone, "released": Released, "failed": make_failed, "dead": make_dead, "throttled": make_throttled,
    "crashed": make_crashed, "crashed for good": lambda: make_crashed(max_crashes=1),
}  # fmt: skip

Step = tuple[Any, ...]
_kinds = st.sampled_from(KINDS)
_jobs = st.fixed_dictionaries(
    {
        "kind": _kinds,
        "queue": st.sampled_from(QUEUES),
        "payload": st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8), st.lists, max_leaves=4
        ),
        "priority": st.integers(-2, 2),
        "max_attempts": st.integers(1, 3),
        "delay": st.sampled_from([None, None, 0, 5, 40]),
        "ttl": st.sampled_from([None, None, 20, 90]),
        "dedupe_key": st.sampled_from([None, None, "k1", "k2", "schlüssel %_"]),
        "on_conflict": st.sampled_from(["skip", "replace", "error"]),
        "unique_for": st.sampled_from([None, 60]),
        "tags": st.sampled_from([(), ("eu",), ("eu", "vip")]),
    }
)
_steps = st.one_of(
    st.tuples(st.just("enqueue"), _jobs),
    st.tuples(st.just("bulk"), st.lists(_jobs, min_size=1, max_size=5)),
    st.tuples(
        st.just("claim"), st.sampled_from(QUEUES), st.lists(_kinds, min_size=1, max_size=3, unique=True),
        st.sampled_from([HOST, OTHER_HOST]), st.integers(1, 4), st.booleans(),
    ),
    st.tuples(st.just("settle"), st.lists(st.tuples(st.integers(0, 9), st.sampled_from(sorted(OUTCOMES))), max_size=4)),
    st.tuples(st.just("advance"), st.sampled_from([1, 7, 31, 121, 4_000])),
    st.tuples(st.just("beat"), st.sampled_from([HOST, OTHER_HOST]), st.lists(st.integers(0, 9), max_size=4)),
    st.tuples(st.sampled_from(["cancel", "delete", "retry", "run_now"]), st.integers(0, 9)),
    st.tuples(st.just("act_on"), st.sampled_from(["cancel", "delete", "retry", "run_now"]), st.sampled_from(QUEUES)),
    st.tuples(st.sampled_from(["revive", "expire", "counts", "next_due", "outstanding", "waiting"])),
    st.tuples(st.sampled_from(["pause", "resume", "forget_cool_down"]), st.sampled_from(QUEUES)),
    st.tuples(st.just("bound"), st.sampled_from(QUEUES), st.sampled_from([None, 1, 3])),
    st.tuples(st.just("search"), st.sampled_from(["a", "%", "Ü", "eu"])),
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, derandomize=True, phases=UNSHRUNK,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(program=st.lists(_steps, min_size=8, max_size=40))
def test_both_backends_answer_alike(pg15: Server, program: list[Step]) -> None:
    asyncio.run(_compare(pg15.url, program))


async def _compare(url: str, program: list[Step]) -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        players = []
        for store in (f"sqlite:///{Path(folder)}/jobs.db", url):
            clock = ManualClock()
            config = StoreConfig(schema=f"diff_{uuid4().hex}")
            storage = await stack.enter_async_context(open_storage(store, clock=clock, config=config))
            players.append(Player(storage, clock))
        for number, step in enumerate(program):
            said = []
            for player in players:
                random.seed(number)
                said.append((await player.play(number, step), await player.rows()))
            for ours, theirs in zip(_parts(said[0]), _parts(said[1]), strict=True):
                assert ours == theirs, f"after step {number}, {step!r}"


def _parts(said: tuple[Any, tuple[Any, ...]]) -> tuple[Any, ...]:
    """The answer, then each list of rows, so that a difference is shown where it is."""
    return (said[0], *said[1])


class Player:
    """A store at work on the program."""

    def __init__(self, storage: Storage, clock: ManualClock) -> None:
        self.storage = storage
        self.clock = clock
        self.ids: list[JobId] = []
        self.claims: list[JobRecord] = []

    async def play(self, number: int, step: Step) -> Any:
        verb: Callable[..., Awaitable[Any]] = getattr(self, step[0])
        try:
            return await verb(number, *step[1:])
        except StorageError as error:
            return type(error).__name__, str(error)

    async def rows(self) -> Any:
        """Everything that is stored about jobs and queues."""
        page = await self.storage.jobs.list_jobs(JobFilter(), limit=500)
        details = [await self.storage.jobs.get(row.id) for row in page.items]
        return page, details, await self.storage.queues.list(), await self.storage.processes.list(STALE)

    def _request(self, number: int, place: int, fields: dict[str, Any]) -> EnqueueRequest:
        given = {key: value for key, value in fields.items() if value is not None and key not in ("kind", "payload")}
        if fields["dedupe_key"] is None:
            given.pop("unique_for", None)
        job_id = JobId(f"01J{number:010d}{place:013d}")
        self.ids.append(job_id)
        return EnqueueRequest(fields["kind"], fields["payload"], id=job_id, **given)

    async def enqueue(self, number: int, fields: dict[str, Any]) -> Any:
        return await self.storage.jobs.enqueue(self._request(number, 0, fields))

    async def bulk(self, number: int, jobs: list[dict[str, Any]]) -> Any:
        return await self.storage.jobs.enqueue_bulk([self._request(number, n, job) for n, job in enumerate(jobs)])

    async def claim(self, _: int, queue: str, kinds: list[str], host: str, limit: int, alone: bool) -> Any:
        request = make_claim(1 if alone else limit, queue=queue, kinds=tuple(kinds), host_id=host, alone=alone)
        claim = await self.storage.jobs.claim(request)
        self.claims += claim.jobs
        return claim

    async def settle(self, _: int, chosen: list[tuple[int, str]]) -> Any:
        items = {}
        for place, outcome in chosen:
            if self.claims:
                job = self.claims[place % len(self.claims)]
                items[job.id] = Finalize(job.id, job.fence, OUTCOMES[outcome](), job)
        return (await self.storage.jobs.settle_and_claim(list(items.values()))).settled

    async def advance(self, _: int, seconds: int) -> None:
        self.clock.advance(seconds)

    async def beat(self, _: int, host: str, places: list[int]) -> Any:
        named = {self.claims[place % len(self.claims)] for place in places} if self.claims else set()
        heart = self.storage.processes.open_heart(timedelta(seconds=5))
        try:
            beaten = [Claimed(job.id, job.fence) for job in sorted(named, key=lambda job: (job.id, job.fence))]
            return await asyncio.to_thread(heart.beat, make_process(host), beaten)
        finally:
            await asyncio.to_thread(heart.close)

    def _pick(self, place: int) -> JobId:
        return self.ids[place % len(self.ids)] if self.ids else JobId("01J00000000000000000000000")

    async def cancel(self, _: int, place: int) -> Any:
        return await self.storage.jobs.cancel(self._pick(place))

    async def delete(self, _: int, place: int) -> Any:
        return await self.storage.jobs.delete(self._pick(place))

    async def retry(self, _: int, place: int) -> Any:
        return await self.storage.jobs.retry(self._pick(place))

    async def run_now(self, _: int, place: int) -> Any:
        return await self.storage.jobs.run_now(self._pick(place))

    async def act_on(self, _: int, action: str, queue: str) -> Any:
        return await self.storage.jobs.act_on(action, JobFilter(queues=(queue,)))

    async def revive(self, _: int) -> Any:
        return sorted(await self.storage.jobs.revive_stale(STALE), key=lambda one: one.job_id)

    async def expire(self, _: int) -> Any:
        return await self.storage.jobs.expire_due()

    async def counts(self, _: int) -> Any:
        return await self.storage.queues.counts(), await self.storage.jobs.count(JobFilter())

    async def next_due(self, _: int) -> Any:
        return await self.storage.jobs.next_due(QUEUES)

    async def outstanding(self, _: int) -> Any:
        return await self.storage.jobs.outstanding(QUEUES, KINDS)

    async def waiting(self, _: int) -> Any:
        return await self.storage.jobs.waiting_kinds()

    async def pause(self, _: int, queue: str) -> Any:
        return await self.storage.queues.pause(queue)

    async def resume(self, _: int, queue: str) -> Any:
        return await self.storage.queues.resume(queue)

    async def forget_cool_down(self, _: int, queue: str) -> Any:
        return await self.storage.queues.clear_cool_down(queue)

    async def bound(self, _: int, queue: str, most: int | None) -> Any:
        return await self.storage.queues.change(queue, QueueChange(max_pending=most))

    async def search(self, _: int, text: str) -> Any:
        found = await self.storage.jobs.list_jobs(JobFilter(search=text))
        return found, await self.storage.jobs.list_jobs(JobFilter(tag=text))
