"""One supervisor per queue keeps as many slots open as its target says.

Scaling down is gentle: idle slots close, busy ones finish their job first and claim nothing more, so scaling,
pausing and settings changes never cost an attempt.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from forge_jobs import limits
from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.shares import fair_share
from forge_jobs.runtime.worker import Slot
from forge_jobs.storage.error import StorageError
from forge_jobs.storage.types.process import ProcessState

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv
    from forge_jobs.runtime.exchange import Line
    from forge_jobs.storage.types.queue import QueueSettings

log = logging.getLogger("forge_jobs.supervisor")

REPLACE_BACKOFF_S: Final = (0.1, 5.0)


class Supervisor:
    """Opens and closes the slots of one queue in this process."""

    def __init__(self, env: RuntimeEnv, line: Line, slots: int | None) -> None:
        self.env = env
        self.line = line
        self.asked = slots
        """What `slots` was set to; None takes the default, and a larger cap for a queue with a total."""
        self.slots: dict[int, Slot] = {}
        self.faults = 0
        self._leftovers: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        line.supervisor = self

    async def run(self) -> None:
        """Tick at start, when woken, and every `supervisor_s`, until cancelled."""
        while True:
            try:
                await self.tick()
            except StorageError as error:
                log.warning("settings_unreadable queue=%s error=%s; slots stay as they are", self.line.queue, error)
            self._look.clear()
            timer = asyncio.get_running_loop().call_later(self.env.config.supervisor_s, self._look.set)
            try:
                await self._look.wait()
            finally:
                timer.cancel()

    def woken(self, *, named: bool) -> None:
        """A wake of this very queue while it has no slots may be a resume."""
        if named and not self.slots:
            self._look.set()

    async def tick(self) -> None:
        """Read the settings and bring the slots to the target."""
        settings = await self.env.storage.queues.get(self.line.queue)
        if settings is None:
            settings = await self.env.storage.queues.ensure(self.line.queue)
        self.env.settings[self.line.queue] = settings
        paused = settings.paused or self.env.host_id in settings.paused_processes
        if paused and settings.pause_signal:
            self.env.running.interrupt(CancelReason.PAUSE, self.line.queue)
        if not self.env.stopping.is_set():
            self.scale_to(0 if paused else await self._target(settings))

    async def _target(self, settings: QueueSettings) -> int:
        if settings.max_workers is None:
            return self.asked if self.asked is not None else self.env.config.slots
        rows = await self.env.storage.processes.list(self.env.config.stale_after)
        hosts = {
            row.info.host_id
            for row in rows
            if row.live and row.info.state is not ProcessState.DRAINING and self.line.queue in row.info.queues
        }
        share = fair_share(settings.max_workers, [*(hosts | {self.env.host_id})], self.env.host_id)
        return min(share, self.asked if self.asked is not None else limits.SLOTS_PER_QUEUE_OF_A_TOTAL)

    def scale_to(self, target: int) -> None:
        """Open the lowest free indices, or close the highest idle slots and mark the highest busy ones."""
        staying = [slot for slot in self.slots.values() if not slot.closing]
        if len(staying) > target:
            by_leaving = sorted(staying, key=lambda slot: (slot.busy, -slot.index))
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
            if not self.env.stopping.is_set() and not slot.closing:
                self._open(slot.index)

    def close(self) -> None:
        """Close every slot; busy ones end with their job."""
        self.scale_to(0)

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
