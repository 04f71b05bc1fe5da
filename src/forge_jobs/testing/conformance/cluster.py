"""What processes agree on through the store: who runs a background loop, and who may open how many slots."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from forge_jobs.clock import ManualClock
from forge_jobs.runtime.loops.rebalance import rebalance_once
from forge_jobs.storage.protocol import CLUSTER, Storage
from forge_jobs.storage.types.finalize import Done
from forge_jobs.storage.types.process import ProcessState
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.storage.types.share import Assignment, Share, Standing
from forge_jobs.testing.conformance.arrange import LONG_SILENCE, STALE, add_many, settle, take, take_one
from forge_jobs.testing.conformance.fixtures import Beater
from forge_jobs.testing.factories import HOST, OTHER_HOST, QUEUE, make_process

TTL: Final = timedelta(seconds=15)
THIRD_HOST: Final = "01J0000000000000000000000C"


class TestLeases:
    async def test_a_free_lease_is_taken_and_shown(self, storage: Storage, clock: ManualClock) -> None:
        lease = await storage.leases.take("cron", HOST, TTL)
        assert lease is not None
        assert (lease.name, lease.holder, lease.expires_at) == ("cron", HOST, clock.now() + TTL)
        assert await storage.leases.list() == [lease]

    async def test_one_holder_at_a_time(self, storage: Storage, neighbour: Storage, clock: ManualClock) -> None:
        assert await storage.leases.take("cron", HOST, TTL) is not None
        clock.advance(14)
        assert await neighbour.leases.take("cron", OTHER_HOST, TTL) is None

    async def test_leases_of_other_names_are_others(self, storage: Storage) -> None:
        assert await storage.leases.take("cron", HOST, TTL) is not None
        assert await storage.leases.take("vacuum", OTHER_HOST, TTL) is not None
        assert [lease.name for lease in await storage.leases.list()] == ["cron", "vacuum"]

    async def test_of_many_that_try_at_once_one_has_it(self, storage: Storage, neighbour: Storage) -> None:
        tries = [
            (storage if n % 2 else neighbour).leases.take("cron", f"01J000000000000000000000{n:02}", TTL)
            for n in range(20)
        ]
        assert sum(lease is not None for lease in await asyncio.gather(*tries)) == 1

    async def test_a_renewed_lease_holds_on_under_its_token(self, storage: Storage, clock: ManualClock) -> None:
        lease = await storage.leases.take("cron", HOST, TTL)
        assert lease is not None
        for _ in range(5):
            clock.advance(10)
            renewed = await storage.leases.renew(lease, TTL)
            assert renewed is not None
            assert (renewed.token, renewed.expires_at) == (lease.token, clock.now() + TTL)
            assert await storage.leases.take("cron", OTHER_HOST, TTL) is None

    async def test_a_lease_that_ended_is_anybodys_and_its_token_grows(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        first = await storage.leases.take("cron", HOST, TTL)
        clock.advance(15)
        assert await storage.leases.list() == []
        second = await storage.leases.take("cron", OTHER_HOST, TTL)
        assert first is not None
        assert second is not None
        assert (second.holder, second.token > first.token) == (OTHER_HOST, True)

    async def test_a_holder_that_was_replaced_learns_it_at_its_next_renewal(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        late = await storage.leases.take("cron", HOST, TTL)
        assert late is not None
        clock.advance(15)
        current = await storage.leases.take("cron", OTHER_HOST, TTL)
        assert await storage.leases.renew(late, TTL) is None
        assert await storage.leases.release(late) is False
        assert await storage.leases.list() == [current]

    async def test_a_late_holder_that_nobody_replaced_goes_on(self, storage: Storage, clock: ManualClock) -> None:
        lease = await storage.leases.take("cron", HOST, TTL)
        assert lease is not None
        clock.advance(60)
        renewed = await storage.leases.renew(lease, TTL)
        assert renewed is not None
        assert renewed.token == lease.token

    async def test_a_released_lease_is_free_at_once_and_cannot_be_renewed(self, storage: Storage) -> None:
        lease = await storage.leases.take("cron", HOST, TTL)
        assert lease is not None
        assert await storage.leases.release(lease) is True
        assert await storage.leases.release(lease) is False
        assert await storage.leases.list() == []
        assert await storage.leases.renew(lease, TTL) is None
        taken = await storage.leases.take("cron", OTHER_HOST, TTL)
        assert taken is not None
        assert taken.token > lease.token

    async def test_a_holder_may_take_again_what_it_holds_under_a_new_token(self, storage: Storage) -> None:
        first = await storage.leases.take("cron", HOST, TTL)
        again = await storage.leases.take("cron", HOST, TTL)
        assert first is not None
        assert again is not None
        assert again.token > first.token
        assert await storage.leases.renew(first, TTL) is None

    async def test_a_process_that_leaves_holds_no_lease(self, storage: Storage, beater: Beater) -> None:
        await beater.beat(make_process(HOST))
        await storage.leases.take("cron", HOST, TTL)
        await storage.leases.take("vacuum", OTHER_HOST, TTL)
        await storage.processes.remove(HOST)
        assert [lease.name for lease in await storage.leases.list()] == ["vacuum"]


class TestShares:
    async def test_shares_are_written_where_they_differ(self, storage: Storage, beater: Beater) -> None:
        await beater.beat(make_process(HOST))
        await beater.beat(make_process(OTHER_HOST))
        assert await storage.shares.assign([give(HOST, 3), give(OTHER_HOST, 4)]) == 2
        assert await storage.shares.assign([give(HOST, 3), give(OTHER_HOST, 2)]) == 1
        assert await storage.shares.assign([give(HOST, None), give(OTHER_HOST, 2)]) == 1
        assert await storage.shares.assign([]) == 0
        assert await storage.shares.list() == [has(HOST, None), has(OTHER_HOST, 2)]

    async def test_a_process_that_is_not_on_the_list_gets_no_share(self, storage: Storage) -> None:
        assert await storage.shares.assign([give(HOST, 3)]) == 0
        assert await storage.shares.list() == []

    async def test_a_share_leaves_what_is_open_and_the_other_way_round(self, storage: Storage, beater: Beater) -> None:
        await arrange(storage, beater, HOST)
        await opens(storage, HOST, 4)
        await storage.shares.assign([give(HOST, 2)])
        await opens(storage, HOST, 3, staying=4)
        assert await storage.shares.list() == [has(HOST, 2, slots=3)]

    async def test_shares_go_with_their_process(self, storage: Storage, beater: Beater) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        await storage.shares.assign([give(HOST, 5), give(OTHER_HOST, 5)])
        await storage.processes.remove(HOST)
        assert await storage.shares.list() == [has(OTHER_HOST, 5)]

    async def test_shares_go_with_a_forgotten_process(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST)
        await storage.shares.assign([give(HOST, 5)])
        clock.advance(301)
        await beater.beat(make_process(OTHER_HOST))
        await storage.shares.assign([give(OTHER_HOST, 5)])
        await storage.processes.prune(timedelta(seconds=300))
        assert await storage.shares.list() == [has(OTHER_HOST, 5)]

    async def test_shares_go_with_their_queue(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await arrange(storage, beater, HOST)
        await storage.shares.assign([give(HOST, 5)])
        clock.advance(timedelta(hours=1))
        await storage.queues.delete(QUEUE)
        assert await storage.shares.list() == []


class TestRebalance:
    async def test_a_total_is_split_fairly_and_what_is_right_is_not_written_again(
        self, storage: Storage, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST, THIRD_HOST)
        first = await rebalance_once(storage, STALE)
        assert {row.host_id: row.share for row in await storage.shares.list()} == {
            HOST: 4, OTHER_HOST: 3, THIRD_HOST: 3,
        }  # fmt: skip
        again = await rebalance_once(storage, STALE)
        assert (len(first.written), again.written, again.splits) == (3, [], first.splits)

    async def test_the_others_get_what_a_dead_or_draining_process_had(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST, THIRD_HOST)
        await rebalance_once(storage, STALE)
        clock.advance(LONG_SILENCE)
        await beater.beat(make_process(OTHER_HOST))
        await beater.beat(make_process(THIRD_HOST, state=ProcessState.DRAINING))
        await rebalance_once(storage, STALE)
        assert {row.host_id: row.share for row in await storage.shares.list()} == {
            HOST: 0, OTHER_HOST: 10, THIRD_HOST: 0,
        }  # fmt: skip

    async def test_without_a_live_process_nothing_is_done(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST)
        await rebalance_once(storage, STALE)
        clock.advance(LONG_SILENCE)
        assert (await rebalance_once(storage, STALE)).written == ()
        assert await storage.shares.list() == [has(HOST, 10)]

    async def test_a_change_of_a_total_and_a_new_split_are_told(self, storage: Storage, beater: Beater) -> None:
        told: list[frozenset[str] | None] = []
        await arrange(storage, beater, HOST)
        unsubscribe = storage.subscribe(HOST, told.append)
        try:
            await storage.queues.change(QUEUE, QueueChange(max_workers=7))
            assert frozenset({QUEUE, CLUSTER}) in told
            told.clear()
            await rebalance_once(storage, STALE)
            assert frozenset({CLUSTER}) in told
        finally:
            unsubscribe()


class TestOpenSlots:
    async def test_slots_are_granted_until_the_total_is_open(self, storage: Storage, beater: Beater) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        assert await opens(storage, HOST, 7) == 7
        assert await opens(storage, OTHER_HOST, 7) == 3
        assert await storage.shares.list() == [has(HOST, None, slots=7), has(OTHER_HOST, None, slots=3)]

    async def test_many_that_ask_at_once_get_the_total_between_them(
        self, storage: Storage, neighbour: Storage, beater: Beater
    ) -> None:
        hosts = [f"01J000000000000000000000{n:02}" for n in range(12)]
        await arrange(storage, beater, *hosts)
        asked = [opens(storage if n % 2 else neighbour, host, 3) for n, host in enumerate(hosts)]
        assert sum(await asyncio.gather(*asked)) == 10

    async def test_without_a_total_all_are_granted_and_counted_for_the_day_there_is_one(
        self, storage: Storage, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST, total=None)
        assert await opens(storage, HOST, 8) == 8
        assert await opens(storage, OTHER_HOST, 8) == 8
        await storage.queues.change(QUEUE, QueueChange(max_workers=10))
        assert await opens(storage, OTHER_HOST, 2, staying=8) == 2
        assert await opens(storage, OTHER_HOST, 8, staying=2) == 2

    async def test_a_slot_that_closes_counts_until_it_is_left_out(self, storage: Storage, beater: Beater) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        assert await opens(storage, HOST, 10) == 10
        assert await opens(storage, HOST, 4, staying=4, closing=3) == 4
        assert await opens(storage, OTHER_HOST, 6) == 3
        assert await opens(storage, HOST, 4, staying=4) == 4
        assert await opens(storage, OTHER_HOST, 6, staying=3) == 6

    async def test_a_lowered_total_grants_nothing_until_enough_are_closed(
        self, storage: Storage, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        await opens(storage, HOST, 6)
        await opens(storage, OTHER_HOST, 4)
        await storage.queues.change(QUEUE, QueueChange(max_workers=5))
        assert await opens(storage, OTHER_HOST, 5, staying=4) == 4
        assert await opens(storage, HOST, 3, staying=6) == 3
        assert await opens(storage, OTHER_HOST, 5, staying=2, closing=1) == 2

    async def test_what_a_silent_process_had_is_taken_over(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        await opens(storage, HOST, 10)
        clock.advance(29)
        await beater.beat(make_process(OTHER_HOST))
        assert await opens(storage, OTHER_HOST, 10) == 0
        clock.advance(2)
        assert await opens(storage, OTHER_HOST, 10) == 10

    async def test_jobs_of_a_silent_process_count_until_they_are_taken_back(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        await add_many(storage, 4)
        await opens(storage, HOST, 10)
        await take(storage, 4, host_id=HOST)
        clock.advance(LONG_SILENCE)
        await beater.beat(make_process(OTHER_HOST))
        assert await opens(storage, OTHER_HOST, 10) == 6
        assert len(await storage.jobs.revive_stale(STALE)) == 4
        assert await opens(storage, OTHER_HOST, 10, staying=6) == 10

    async def test_a_process_that_comes_back_keeps_the_jobs_it_still_has_and_no_slot_more(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        await add_many(storage, 2)
        await opens(storage, HOST, 10)
        one, other = await take(storage, 2, host_id=HOST)
        clock.advance(LONG_SILENCE)
        await beater.beat(make_process(OTHER_HOST))
        assert await opens(storage, OTHER_HOST, 10) == 8
        await beater.beat(make_process(HOST))
        assert await opens(storage, HOST, 10, staying=10) == 2
        await settle(storage, one, Done())
        await settle(storage, other, Done())
        assert await opens(storage, HOST, 0, staying=2) == 0
        assert await opens(storage, OTHER_HOST, 10, staying=8) == 10

    async def test_a_process_that_comes_back_in_time_keeps_its_slots(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST)
        await opens(storage, HOST, 10)
        clock.advance(LONG_SILENCE)
        await beater.beat(make_process(HOST))
        assert await opens(storage, HOST, 10, staying=10) == 10

    async def test_a_process_that_others_cannot_see_is_granted_nothing_more(
        self, storage: Storage, clock: ManualClock, beater: Beater
    ) -> None:
        await arrange(storage, beater, HOST)
        assert await opens(storage, OTHER_HOST, 5) == 0
        await opens(storage, HOST, 2)
        clock.advance(LONG_SILENCE)
        assert await opens(storage, HOST, 5, staying=2) == 2
        assert [row.host_id for row in await storage.shares.list()] == [HOST]

    async def test_a_queue_that_does_not_exist_has_no_slots(self, storage: Storage, beater: Beater) -> None:
        await beater.beat(make_process(HOST))
        assert await opens(storage, HOST, 5) == 0

    async def test_a_process_sees_where_it_stands(self, storage: Storage, clock: ManualClock, beater: Beater) -> None:
        await arrange(storage, beater, HOST, OTHER_HOST)
        await opens(storage, HOST, 3)
        await opens(storage, OTHER_HOST, 5)
        await storage.shares.assign([give(HOST, 4)])
        assert await storage.shares.standing(QUEUE, HOST, STALE) == Standing(
            total=10, share=4, open=3, elsewhere=5, live=True
        )
        await add_many(storage, 1)
        await take_one(storage, host_id=OTHER_HOST)
        clock.advance(LONG_SILENCE)
        assert await storage.shares.standing(QUEUE, HOST, STALE) == Standing(
            total=10, share=4, open=3, elsewhere=1, live=False
        )
        unknown = await storage.shares.standing("never.seen", HOST, STALE)
        assert (unknown.total, unknown.elsewhere) == (0, 0)


def give(host: str, share: int | None) -> Assignment:
    return Assignment(queue=QUEUE, host_id=host, share=share)


def has(host: str, share: int | None, *, slots: int = 0) -> Share:
    return Share(queue=QUEUE, host_id=host, share=share, open=slots)


async def arrange(storage: Storage, beater: Beater, *hosts: str, total: int | None = 10) -> None:
    """A queue with a total, and live processes that serve it."""
    await storage.queues.ensure(QUEUE, QueueChange(max_workers=total))
    for host in hosts:
        await beater.beat(make_process(host))


async def opens(storage: Storage, host: str, wanted: int, *, staying: int = 0, closing: int = 0) -> int:
    """Ask for slots; how many are granted."""
    return await storage.shares.open_slots(
        QUEUE, host, staying=staying, closing=closing, wanted=wanted, stale_after=STALE
    )
