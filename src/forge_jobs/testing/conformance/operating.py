"""What an operator's page asks of a store: changes, orders of lists, wishes to workers, pages of the audit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from forge_jobs import limits
from forge_jobs.clock import ManualClock
from forge_jobs.ids import JobId
from forge_jobs.storage.error import InvalidInput, NotFound
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.answers import BulkReport, NotWaiting
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.finalize import Done, ErrorText, Failed
from forge_jobs.storage.types.job import EnqueueRequest, JobChange, JobFilter, JobOrder, KindCounts
from forge_jobs.storage.types.process import ProcessWish
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.testing.conformance.arrange import add, add_many, read, read_all, run, settle, take, take_one
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, make_process

ANN = Actor(name="ann", surface="http", address="192.0.2.1", request_id="r1")


class TestChange:
    async def test_a_waiting_job_is_changed_and_audited(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        later = clock.now() + timedelta(hours=1)
        change = JobChange(priority=-3, run_at=later, max_attempts=9, expires_at=later + timedelta(hours=1))
        assert await storage.jobs.change(job_id, change, actor=ANN) is None
        row = await read(storage, job_id)
        assert (row.priority, row.scheduled_at, row.max_attempts) == (-3, later, 9)
        assert row.expires_at == later + timedelta(hours=1)
        (act,) = await storage.audit.list(limit=1)
        assert (act.action, act.target, act.actor.name) == ("job.change", job_id, "ann")
        assert (act.before["priority"], act.after["priority"]) == (0, -3)

    async def test_a_changed_time_decides_about_claims(self, storage: Storage, clock: ManualClock) -> None:
        job_id = await add(storage)
        await storage.jobs.change(job_id, JobChange(run_at=clock.now() + timedelta(minutes=1)))
        assert await take(storage) == ()
        await storage.jobs.change(job_id, JobChange(run_at=clock.now() - timedelta(minutes=1)))
        assert (await take_one(storage)).id == job_id

    async def test_a_job_moves_to_a_queue_that_is_made_for_it(self, storage: Storage) -> None:
        job_id = await add(storage)
        await storage.jobs.change(job_id, JobChange(queue="elsewhere"))
        assert await take(storage) == ()
        assert (await take_one(storage, queue="elsewhere")).id == job_id
        assert await storage.queues.get("elsewhere") is not None

    async def test_only_a_job_that_waits_is_changed(self, storage: Storage) -> None:
        job_id = await add(storage)
        job = await take_one(storage)
        assert await storage.jobs.change(job_id, JobChange(priority=1)) == NotWaiting("in_progress")
        await storage.jobs.finalize(job.id, job.fence, Done())
        assert await storage.jobs.change(job_id, JobChange(priority=1)) == NotWaiting("done")
        await storage.jobs.delete(job_id)
        assert await storage.jobs.change(job_id, JobChange(priority=1)) == NotWaiting(None)

    async def test_a_senseless_change_is_refused(self, storage: Storage) -> None:
        job_id = await add(storage)
        for change in (JobChange(), JobChange(priority=10_000), JobChange(queue="a,b")):
            with pytest.raises(InvalidInput):
                await storage.jobs.change(job_id, change)
        assert await storage.audit.list() == []


class TestOrders:
    async def test_waiting_jobs_by_their_time(self, storage: Storage) -> None:
        late = await storage.jobs.enqueue(EnqueueRequest("k", queue="a", delay=60))
        soon = await storage.jobs.enqueue(EnqueueRequest("k", queue="b", delay=30))
        due = await storage.jobs.enqueue(EnqueueRequest("k", queue="a"))
        first = await storage.jobs.list_jobs(JobFilter(), limit=2, order=JobOrder.SCHEDULED)
        rest = await storage.jobs.list_jobs(JobFilter(), limit=2, cursor=first.next_cursor, order=JobOrder.SCHEDULED)
        assert [row.id for row in (*first.items, *rest.items)] == [due.id, soon.id, late.id]
        assert (first.total, rest.next_cursor) == (3, None)

    async def test_future_jobs_alone_however_many_are_due(self, storage: Storage) -> None:
        await add_many(storage, 3)
        late = await storage.jobs.enqueue(EnqueueRequest("k", queue="a", delay=60))
        soon = await storage.jobs.enqueue(EnqueueRequest("k", queue="b", delay=30))
        first = await storage.jobs.list_jobs(JobFilter(), limit=1, order=JobOrder.FUTURE)
        rest = await storage.jobs.list_jobs(JobFilter(), limit=1, cursor=first.next_cursor, order=JobOrder.FUTURE)
        assert [row.id for row in (*first.items, *rest.items)] == [soon.id, late.id]
        assert (first.total, rest.next_cursor) == (2, None)
        for chosen, total in (
            (JobFilter(queues=("a",)), 1), (JobFilter(statuses=("dead",)), 0), (JobFilter(kinds=("k",)), None)
        ):  # fmt: skip
            assert (await storage.jobs.list_jobs(chosen, order=JobOrder.FUTURE)).total == total

    async def test_due_jobs_of_many_kinds_and_priorities_stand_in_one_order_beside_retries_and_later_ones(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """Equal times among them, so that ids decide; in pages that end anywhere."""
        for number in range(60):
            run_at = clock.now() + timedelta(seconds=(number * 7) % 11 - 8)
            place = {"kind": f"k{number % 4}", "queue": f"q{number % 3}", "priority": number % 5 - 2}
            await add(storage, run_at=run_at, **place)
        for number in range(9):
            await take(storage, kinds=("k0", "k1"), queue=f"q{number % 3}")
            job = await take_one(storage, kinds=("k2", "k3"), queue=f"q{number % 3}")
            await settle(storage, job, Failed(error=ErrorText("no"), delay=timedelta(seconds=number % 2)))
        clock.advance(1)
        rows = [row for row in (await read_all(storage)).values() if row.status in ("pending", "failed")]
        rows.sort(key=lambda row: (row.scheduled_at, row.id))
        assert len({row.status for row in rows}) == 2
        for chosen, own in (
            (JobFilter(), rows),
            (JobFilter(kinds=("k1", "k2")), [row for row in rows if row.kind in ("k1", "k2")]),
            (JobFilter(queues=("q1",), statuses=("pending",)),
             [row for row in rows if (row.queue, row.status) == ("q1", "pending")]),
            (JobFilter(statuses=("failed", "dead")), [row for row in rows if row.status == "failed"]),
        ):  # fmt: skip
            for limit in (1, 4, 50):
                assert await _walk(storage, chosen, limit) == [row.id for row in own], (chosen, limit)

    async def test_ended_jobs_by_their_end_latest_first(self, storage: Storage, clock: ManualClock) -> None:
        ended = []
        for _ in range(3):
            await add(storage)
            ended.append((await run(storage, Done())).id)
            clock.advance(1)
        await add(storage)
        page = await storage.jobs.list_jobs(JobFilter(), order=JobOrder.COMPLETED)
        assert [row.id for row in page.items] == ended[::-1]

    async def test_a_cursor_is_refused_by_another_list(self, storage: Storage) -> None:
        await add_many(storage, 2)
        cursor = (await storage.jobs.list_jobs(JobFilter(), limit=1)).next_cursor
        for chosen, order in ((JobFilter(key="k"), JobOrder.NEWEST), (JobFilter(), JobOrder.SCHEDULED)):
            with pytest.raises(InvalidInput):
                await storage.jobs.list_jobs(chosen, limit=1, cursor=cursor, order=order)


class TestOverviews:
    async def test_kinds_and_deaths(self, storage: Storage) -> None:
        for kind in ("a", "a", "b"):
            await storage.jobs.enqueue(EnqueueRequest(kind, queue="q"))
        last = await storage.jobs.enqueue(EnqueueRequest("b", queue="q"))
        await storage.jobs.cancel(last.id)
        assert await storage.jobs.kinds() == [
            KindCounts(queue="q", kind="a", waiting=2), KindCounts(queue="q", kind="b", waiting=1, dead=1),
        ]  # fmt: skip
        (death,) = await storage.jobs.deaths(limit=5)
        assert (death.id, death.kind, death.reason) == (last.id, "b", "cancelled")
        assert await storage.jobs.deaths(["other"], limit=5) == []

    async def test_the_audit_in_pages_of_one_person(self, storage: Storage) -> None:
        await storage.queues.ensure("q")
        for actor in (ANN, Actor(name="bob"), ANN, ANN):
            await storage.queues.pause("q", actor=actor)
        first = await storage.audit.page(limit=2, actor="ann")
        rest = await storage.audit.page(limit=2, actor="ann", cursor=first.next_cursor)
        assert (len(first.items), len(rest.items), rest.next_cursor, first.total) == (2, 1, None, 3)
        assert {row.actor for row in (*first.items, *rest.items)} == {ANN}
        assert (await storage.audit.page(action="none")).items == ()
        with pytest.raises(InvalidInput):
            await storage.audit.page(cursor="x")


class TestOperators:
    async def test_a_process_learns_with_its_beat_what_it_is_asked(self, storage: Storage, beater: Beater) -> None:
        assert (await beater.beat(make_process())).wish is None
        await storage.processes.ask(HOST, ProcessWish.QUIET, actor=ANN)
        assert (await beater.beat(make_process())).wish is ProcessWish.QUIET
        await storage.processes.ask(HOST, None)
        assert (await beater.beat(make_process())).wish is None
        assert [row.action for row in await storage.audit.list()] == ["worker.resume", "worker.quiet"]
        with pytest.raises(NotFound):
            await storage.processes.ask("nobody", ProcessWish.STOP)

    async def test_a_queue_is_made_once(self, storage: Storage) -> None:
        assert await storage.queues.add("q", QueueChange(max_workers=3), actor=ANN)
        assert not await storage.queues.add("q", QueueChange(max_workers=9))
        stored = await storage.queues.get("q")
        assert stored is not None
        assert (stored.max_workers, [row.action for row in await storage.audit.list()]) == (3, ["queue.add"])

    async def test_an_enqueue_of_a_person_is_audited(self, storage: Storage) -> None:
        (outcome,) = await storage.jobs.enqueue_bulk([EnqueueRequest("k", queue="q")], actor=ANN)
        (act,) = await storage.audit.list()
        assert (act.action, act.target, act.count, act.actor) == ("job.enqueue", outcome.id, 1, ANN)

    async def test_an_act_on_many_ends_when_it_is_told(self, storage: Storage) -> None:
        await storage.jobs.enqueue_bulk([EnqueueRequest("k", queue="q") for _ in range(600)])
        seen: list[BulkReport] = []

        def watch(so_far: BulkReport) -> bool:
            seen.append(so_far)
            return False

        report = await storage.jobs.act_on("cancel", JobFilter(queues=("q",)), watch=watch)
        assert (report.changed, len(seen)) == (500, 1)
        assert await storage.jobs.count(JobFilter()) == {"pending": 100, "dead": 500}

    async def test_a_search_that_is_cut_tells_how_many_there_are_at_least(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And a walk over its pages gives each job once, all the same."""
        ids = [
            outcome.id
            for outcome in await storage.jobs.enqueue_bulk(
                [EnqueueRequest("k", _text(n), queue="q") for n in range(2_100)]
            )
        ]
        wanted = sorted(ids[::400], reverse=True)
        chosen = JobFilter(search="find me")
        page = await storage.jobs.list_jobs(chosen, limit=2)
        assert ([row.id for row in page.items], page.total, page.total_at_least) == (wanted[:2], 6, None)
        monkeypatch.setattr(limits, "SEARCH_S", 0.0)
        found, pages, cursor = list[str](), 0, None
        while True:
            page = await storage.jobs.list_jobs(chosen, limit=2, cursor=cursor)
            found += [row.id for row in page.items]
            pages += 1
            assert page.total is None and 1 <= (page.total_at_least or 0) < 6
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == wanted
        assert pages >= 5  # stretches without a match too end a page
        page = await storage.jobs.list_jobs(replace(chosen, statuses=("pending",)), order=JobOrder.SCHEDULED)
        assert (len(page.items), page.total, page.total_at_least) == (6, None, 6)
        monkeypatch.undo()
        page = await storage.jobs.list_jobs(replace(chosen, statuses=("pending",)), order=JobOrder.SCHEDULED)
        assert (len(page.items), page.total, page.total_at_least) == (6, 6, None)
        unlike = await storage.jobs.list_jobs(JobFilter(search="find\\_me"))
        assert (unlike.items, unlike.next_cursor, unlike.total) == ((), None, 0)

    async def test_a_clean_up_of_one_queue_by_other_days(self, storage: Storage, clock: ManualClock) -> None:
        for queue in ("a", "b"):
            job = await storage.jobs.enqueue(EnqueueRequest("k", queue=queue))
            await storage.jobs.cancel(job.id)
        clock.advance(1)
        report = await storage.maintenance.cleanup(queue="a", dead_older_days=0, actor=ANN)
        assert (report.dead, report.done) == (1, 0)
        assert await storage.jobs.count(JobFilter()) == {"dead": 1}
        done, begun = await storage.audit.list(limit=2)
        assert [done.action, begun.action] == ["store.cleanup", "store.cleanup"]
        assert (begun.outcome, done.outcome, done.count, done.target) == ("begun", "done", 1, "a")
        assert done.after["removed"]["dead"] == 1
        with pytest.raises(InvalidInput):
            await storage.maintenance.cleanup(done_older_days=-1)


async def _walk(storage: Storage, chosen: JobFilter, limit: int) -> list[JobId]:
    """Every page of the waiting jobs, one after the other."""
    found: list[JobId] = []
    cursor: str | None = None
    while True:
        page = await storage.jobs.list_jobs(chosen, limit=limit, cursor=cursor, order=JobOrder.SCHEDULED)
        assert len(page.items) <= limit
        found += [row.id for row in page.items]
        if (cursor := page.next_cursor) is None:
            assert page.total == len(found)
            return found


def _text(n: int) -> dict[str, object]:
    """A payload; one in 400 has what is looked for."""
    return {"n": n, "text": "find ME" if n % 400 == 0 else ""}
