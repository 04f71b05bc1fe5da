"""An expensive reading is shared by all who ask, and renewed in proportion to what it costs."""

from __future__ import annotations

import asyncio

import pytest

from forge_jobs.storage.recent import Recent


class Reading:
    """Counts how often it was taken. Takes `cost_s` on a clock of its own, or as long as the test likes."""

    def __init__(self, cost_s: float, *, cheap: bool = False) -> None:
        self.cost_s = cost_s
        self.cheap = cheap
        self.now = 1_000.0
        self.taken = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.sleeping: list[tuple[float, asyncio.Future[None]]] = []
        self.recent = Recent(self.read, cheap=lambda _: self.cheap, now=lambda: self.now, sleep=self.sleep)

    async def read(self) -> int:
        await self.gate.wait()
        self.now += self.cost_s
        if self.fault is not None:
            raise self.fault
        self.taken += 1
        self.read_at = self.now
        return self.taken

    async def sleep(self, span_s: float) -> None:
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleeping.append((self.now + span_s, waking))
        await waking

    async def pass_time(self, span_s: float) -> None:
        """As the loop sees it: whoever sleeps no longer goes on."""
        end = self.now + span_s
        await settled()
        while due := [one for one in self.sleeping if one[0] <= end]:
            first = min(due, key=lambda one: one[0])
            self.sleeping.remove(first)
            self.now = max(self.now, first[0])
            first[1].set_result(None)
            await settled()
        self.now = max(self.now, end)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_ask_at_once_share_one_reading() -> None:
    reading = Reading(1)
    assert await asyncio.gather(*(reading.recent.get() for _ in range(9))) == [1] * 9


async def test_what_costs_a_second_is_read_again_after_twenty() -> None:
    reading = Reading(1)
    assert await reading.recent.get() == 1
    reading.now += 18
    assert await reading.recent.get() == 1
    await settled()
    assert reading.taken == 1
    reading.now += 2
    assert await reading.recent.get() == 1, "nobody waits for the new one"
    await settled()
    assert await reading.recent.get() == 2


async def test_what_is_cheap_is_always_of_this_moment() -> None:
    reading = Reading(1, cheap=True)
    assert [await reading.recent.get() for _ in range(3)] == [1, 2, 3]


async def test_what_is_much_now_is_shared_and_what_is_little_now_is_not() -> None:
    reading = Reading(1, cheap=True)
    await reading.recent.get()
    reading.cheap = False
    assert [await reading.recent.get() for _ in range(3)] == [1, 1, 1]
    reading.now += 31
    assert [await reading.recent.get() for _ in range(3)] == [2, 2, 2]
    reading.cheap = True
    assert [await reading.recent.get() for _ in range(3)] == [3, 4, 5]


async def test_what_is_much_too_old_is_waited_for() -> None:
    reading = Reading(0.1)
    await reading.recent.get()
    reading.now += 13
    assert await reading.recent.get() == 2


async def test_a_caller_who_gives_up_does_not_cost_the_others_the_reading() -> None:
    reading = Reading(1)
    reading.gate.clear()
    impatient, patient = (asyncio.create_task(reading.recent.get()) for _ in range(2))
    await settled()
    impatient.cancel()
    await settled()
    reading.gate.set()
    assert await patient == 1


async def test_a_fault_beside_is_raised_to_the_next_caller_and_forgotten() -> None:
    reading = Reading(1)
    await reading.recent.get()
    reading.now += 25
    reading.fault = OSError("gone")
    assert await reading.recent.get() == 1
    await settled()
    with pytest.raises(OSError, match="gone"):
        await reading.recent.get()
    reading.fault = None
    await reading.recent.get()
    await settled()
    assert await reading.recent.get() == 2


async def test_a_fault_that_was_told_is_not_told_again() -> None:
    reading = Reading(1)
    reading.fault = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        await reading.recent.get()
    reading.fault = None
    assert await reading.recent.get() == 1


async def test_it_is_kept_fresh_for_whoever_asks_now_and_then() -> None:
    """A scrape of metrics every minute neither waits nor is told something old."""
    reading = Reading(1)
    assert await reading.recent.get() == 1
    for _ in range(5):
        await reading.pass_time(60)
        taken = reading.taken
        assert await reading.recent.get() == taken, "it waits for none"
        assert reading.now - reading.read_at <= 1 + 20
    assert 10 <= reading.taken <= 16


async def test_nothing_is_read_when_nobody_has_asked_for_long() -> None:
    reading = Reading(1)
    await reading.recent.get()
    await reading.pass_time(10_000)
    taken = reading.taken
    assert taken < 10
    assert await reading.recent.get() == taken + 1


async def test_it_is_not_kept_fresh_when_there_is_little_to_read() -> None:
    reading = Reading(0.001)
    await reading.recent.get()
    await reading.pass_time(10)
    reading.cheap = True
    taken = reading.taken
    assert taken == 5, "every two seconds"
    await reading.pass_time(100)
    assert reading.taken <= taken + 1


async def test_a_fault_beside_that_has_passed_is_told_to_nobody() -> None:
    reading = Reading(1)
    await reading.recent.get()
    reading.fault = OSError("gone")
    await reading.pass_time(25)
    reading.fault = None
    await reading.pass_time(25)
    assert await reading.recent.get() == reading.taken > 1


async def test_closing_ends_what_is_under_way() -> None:
    reading = Reading(1)
    await reading.recent.get()
    reading.now += 25
    reading.gate.clear()
    await reading.recent.get()
    await reading.recent.close()
    assert len(asyncio.all_tasks()) == 1
