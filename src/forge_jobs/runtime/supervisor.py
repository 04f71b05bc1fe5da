"""One supervisor per queue keeps as many slots open as its target says.

Scaling down is gentle: idle slots close, busy ones finish their job first and claim nothing more, so scaling,
pausing and settings changes never cost an attempt.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.shares import plan_shares
from forge_jobs.runtime.worker import Slot
from forge_jobs.storage.error import StorageError
from forge_jobs.storage.protocol import CLUSTER

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.exchange import Line
    from forge_jobs.storage.types.share import Standing

log = logging.getLogger("forge_jobs.supervisor")

LOOK_GAP_S: Final = 0.02
"""However many wakes come, two ticks are this far apart."""
REPLACE_BACKOFF_S: Final = (0.1, 5.0)


class Supervisor:
    """Opens and closes the slots of one queue in this process.

    The store counts the slots of every process. One more is opened only when it has been granted, and one less is
    told only when no job is left in what was closed: so over all processes never more are open than the total.
    """

    def __init__(self, env: RuntimeEnv, line: Line, slots: int | None, offered: int) -> None:
        self.env = env
        self.line = line
        self.asked = slots
        """What `slots` was set to; None takes the default, and a larger cap for a queue with a total."""
        self.offered = offered
        """The most slots it would open of a total."""
        self.slots: dict[int, Slot] = {}
        self.granted = 0
        """How many slots may stay open."""
        self.faults = 0
        self._told = 0
        """How many the store counts: those granted, and those that closed with a job in them."""
        self._doubted = False
        self._doubts = 0
        self._leftovers: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        line.supervisor = self

    async def run(self) -> None:
        """Tick at start, when woken, and every `supervisor_s`, until cancelled."""
        while True:
            self._look.clear()
            try:
                await self.tick()
            except StorageError as error:
                log.warning("settings_unreadable queue=%s error=%s; slots stay as they are", self.line.queue, error)
            await asyncio.sleep(LOOK_GAP_S)
            timer = asyncio.get_running_loop().call_later(self.env.config.supervisor_s, self._look.set)
            try:
                await self._look.wait()
            finally:
                timer.cancel()

    def look(self) -> None:
        """Tick soon."""
        self._look.set()

    def woken(self, *, named: bool) -> None:
        """A wake of this very queue while it has no slots may be a resume."""
        if named and not self.slots:
            self._look.set()

    def doubt(self) -> None:
        """This process was silent for so long that others may have its slots: claim nothing before the store has
        said which are left."""
        self._doubted = True
        self._doubts += 1
        self.line.open = False
        self._look.set()

    async def tick(self) -> None:
        """Read the settings and bring the slots to the target."""
        if self.env.leaving:
            await self._bring_to(0, None)
            return
        settings = await self.env.storage.queues.get(self.line.queue)
        if settings is None:
            settings = await self.env.storage.queues.ensure(self.line.queue)
        self.env.settings[self.line.queue] = settings
        paused = settings.paused or self.env.host_id in settings.paused_processes
        if paused and settings.pause_signal:
            self.env.running.interrupt(CancelReason.PAUSE, self.line.queue)
        if paused or settings.max_workers == 0:
            await self._bring_to(0, None)
        elif settings.max_workers is None:
            await self._bring_to(self.asked if self.asked is not None else self.env.config.slots, None)
        else:
            standing = await self.env.storage.shares.standing(
                self.line.queue, self.env.host_id, self.env.takeover_after
            )
            share = standing.share if standing.share is not None else await self._own_part()
            await self._bring_to(min(share, self.offered, settings.max_workers), standing)

    async def _own_part(self) -> int:
        """What the rebalancer will give this process when it has seen it."""
        storage = self.env.storage
        processes = await storage.processes.list(self.env.config.stale_after)
        plan = plan_shares(await storage.queues.list(), processes)
        split = plan.get(self.line.queue)
        return 0 if split is None else split.shares.get(self.env.host_id, 0)

    async def _bring_to(self, wanted: int, standing: Standing | None) -> None:
        """Close what is too many, tell the store, open what it grants."""
        doubts = self._doubts
        self._scale_within(wanted)
        if self._has_news(wanted, standing):
            await self._tell(wanted)
            self._scale_within(wanted)
        if doubts == self._doubts:  # else this answer may be from before the silence that raised the doubt
            self._doubted, self.line.open = False, True
        self.env.exchanger.poke()

    def _scale_within(self, wanted: int) -> None:
        """Scale to what is wanted, as far as it is granted."""
        if self.env.leaving:
            wanted = 0
        self.scale_to(max(min(wanted, self.granted, self._told - self._closing), 0))

    def _has_news(self, wanted: int, standing: Standing | None) -> bool:
        """Whether the store must hear of it: it counts more slots than there are, or seems to have some to give."""
        if self._doubted or self._told > min(wanted, self.granted) + self._closing:
            return True
        if standing is None:
            return wanted > self.granted
        lost = standing.open < self._told
        more = standing.may_open(staying=self._staying, closing=self._closing, wanted=wanted)
        return lost or more > self.granted

    async def _tell(self, wanted: int) -> None:
        """Tell what is open and what is wanted; take what is granted. Others may want what was given up."""
        env, staying, closing, before = self.env, self._staying, self._closing, self._told
        self.granted = min(self.granted, staying)  # whatever becomes of the call, these are counted
        self.granted = await env.storage.shares.open_slots(
            self.line.queue,
            env.host_id,
            staying=staying,
            closing=closing,
            wanted=wanted,
            stale_after=env.takeover_after,
        )
        self._told = self.granted + closing
        if self._told < before:
            env.storage.wake([CLUSTER])

    @property
    def _staying(self) -> int:
        return sum(not slot.closing for slot in self.slots.values())

    @property
    def _closing(self) -> int:
        """Slots that were closed but still have a job: one that runs, is being claimed, or is not settled yet."""
        claiming = sum(slot.closing and slot.reserved for slot in self.slots.values())
        working = sum(run.slot.closing and run.slot.line is self.line for run in self.env.running)
        return claiming + working + len(self.line.returning)

    def scale_to(self, target: int) -> None:
        """Open the lowest free indices, or close the highest idle slots and mark the highest busy ones."""
        staying = [slot for slot in self.slots.values() if not slot.closing]
        if len(staying) > target:
            by_leaving = sorted(staying, key=lambda slot: (slot.busy or slot.reserved, -slot.index))
            for slot in by_leaving[: len(staying) - target]:
                self.line.remove(slot)
                slot.close()
        index = 0
        for _ in range(target - len(staying)):
            while index in self.slots:
                index += 1
            self._open(index)

    def replace(self, slot: Slot) -> None:
        """Give an abandoned slot's place to a new one."""
        if slot.task is not None:
            self._leftovers.add(slot.task)
            slot.task.add_done_callback(self._leftovers.discard)
        if self.slots.get(slot.index) is slot:
            del self.slots[slot.index]
            if not self.env.leaving and not slot.closing:
                self._open(slot.index)

    def close(self) -> None:
        """Close every slot; busy ones end with their job."""
        self.scale_to(0)
        self._look.set()

    @property
    def idle(self) -> bool:
        """Whether no slot has a job."""
        return not any(slot.busy for slot in self.slots.values())

    def _open(self, index: int) -> None:
        slot = Slot(self.env, self.line, index)
        self.slots[index] = slot
        slot.task = asyncio.get_running_loop().create_task(slot.serve(), name=f"forge-{slot.process_id}")
        slot.task.add_done_callback(lambda task: self._ended(slot, task))

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        """A slot's task is over: as asked, or by a fault of ours, after which it is replaced with backoff."""
        mine = self.slots.get(slot.index) is slot
        if mine:
            del self.slots[slot.index]
        if task.cancelled() or task.exception() is None:
            if mine:
                self._look.set()
            return
        self.faults += 1
        self.env.health.counts["slot_faults"] += 1
        log.error("slot_fault process_id=%s", slot.process_id, exc_info=task.exception())
        if mine and not slot.closing:
            wait = min(REPLACE_BACKOFF_S[0] * 2 ** min(self.faults, 10), REPLACE_BACKOFF_S[1])
            asyncio.get_running_loop().call_later(wait, self._look.set)
