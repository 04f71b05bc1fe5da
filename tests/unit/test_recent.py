"""An expensive reading is shared by all who ask, and renewed in proportion to what it costs."""

from __future__ import annotations

import asyncio

import pytest

from forge_jobs.storage.recent import Recent


class Reading:
    """Takes `cost_s` on a clock of its own, or as long as the test likes."""

    def __init__(self, cost_s: float) -> None:
        self.cost_s = cost_s
        self.now = 1_000.0
        self.taken = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.recent = Recent(self.read, now=lambda: self.now)

    async def read(self) -> int:
        await self.gate.wait()
        self.now += self.cost_s
        if self.fault is not None:
            raise self.fault
        self.taken += 1
        return self.taken


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


async def test_what_is_read_quickly_is_always_of_this_moment() -> None:
    reading = Reading(0.01)
    assert [await reading.recent.get() for _ in range(3)] == [1, 2, 3]


async def test_what_became_slow_is_shared_and_what_became_quick_is_not() -> None:
    reading = Reading(0.01)
    await reading.recent.get()
    reading.cost_s = 1
    assert [await reading.recent.get() for _ in range(3)] == [2, 2, 2]
    reading.cost_s, reading.now = 0.01, reading.now + 30
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
