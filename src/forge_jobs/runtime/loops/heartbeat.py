"""Heartbeats, on a thread and a connection of their own, so that no handler can starve them.

One statement per beat covers every job of the process. Its answer says which jobs are lost and which are
cancelled. When beats fail for too long by the local clock the process fences itself: it stops claiming, then
interrupts its handlers, and takes up work again when the store answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from forge_jobs.runtime.cancel import CancelReason
from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.storage.error import StoreUnavailable
from forge_jobs.storage.protocol import Heart
from forge_jobs.storage.types.process import BeatAnswer, Claimed, ProcessInfo, ProcessState, ProcessWish
from forge_jobs.version import __version__

log = logging.getLogger("forge_jobs.heartbeat")

JITTER: Final = 0.1
STRAY_BEATS: Final = 2
"""A claim that this process does not know is given back when that many beats in a row found it."""


class Heartbeat:
    """The heart of one process."""

    def __init__(self, env: RuntimeEnv, queues: tuple[str, ...]) -> None:
        self.env = env
        self.state = ProcessState.RUNNING
        self._queues = queues
        self._loop = asyncio.get_running_loop()
        self._kick = threading.Event()
        self._stop = threading.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._strays: dict[Claimed, tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._run, name="forge-heartbeat", daemon=True)

    async def start(self) -> None:
        """Begin to beat; returns when the first beat was accepted."""
        self.env.health.last_beat_us = self.env.clock.elapsed_us()
        self._thread.start()
        await self.beat_now()

    async def beat_now(self) -> None:
        """Wait for a beat that begins after this call to be accepted."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        self._kick.set()
        await waiter

    def mark_draining(self) -> None:
        """Beat at once to say that this process takes no more work."""
        self.state = ProcessState.DRAINING
        self._kick.set()

    async def stop(self, patience_s: float) -> None:
        """Beat no more; returns when the last beat is over, or after `patience_s` when one hangs."""
        self._stop.set()
        self._kick.set()
        until = self._loop.time() + patience_s
        while self._thread.is_alive() and self._loop.time() < until:
            await asyncio.sleep(0.002)

    # On the heartbeat's thread

    def _run(self) -> None:
        heart: Heart | None = None
        interval = self.env.config.heartbeat_s
        while not self._stop.is_set():
            self._kick.clear()
            waiters = list(self._waiters)
            began = self.env.clock.elapsed_us()
            try:
                if heart is None:
                    heart = self.env.storage.processes.open_heart(timedelta(seconds=interval))
                claims = self.env.running.snapshot()
                answer = heart.beat(self._info(), claims)
            except Exception as error:
                self._discard(heart, error)
                if isinstance(error, StoreUnavailable) and error.fatal:
                    self._tell(lambda error=error: self._give_up(error))  # type: ignore[misc]
                heart = None
                self._tell(self.check_silence)
            else:
                self._tell(lambda answer=answer, began=began, waiters=waiters: self._accepted(answer, began, waiters))  # type: ignore[misc]
            self._kick.wait(interval * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311
        if heart is not None:
            heart.close()

    def _discard(self, heart: Heart | None, error: Exception) -> None:
        """A heart that failed once is replaced: its connection may hang."""
        log.warning("beat_refused error=%s silent_s=%.1f", error, self.env.silent_us() / 1e6)
        if heart is not None:
            try:
                heart.close()
            except Exception:
                log.debug("heart_close_fault", exc_info=True)

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed
            self._stop.set()

    def _info(self) -> ProcessInfo:
        env = self.env
        lines = list(env.exchanger.lines.items())
        # A kind that some queue runs elsewhere is still taken from there.
        refused = frozenset[str].intersection(*(env.threads.refused_kinds(queue) for queue in self._queues))
        return ProcessInfo(
            host_id=env.host_id,
            label=env.label,
            host_name=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            queues=self._queues,
            kinds=tuple(kind for kind in env.handlers.kinds() if kind not in refused),
            slots={queue: len(line.supervisor.slots) for queue, line in lines},
            offered={queue: line.supervisor.offered for queue, line in lines},
            running=env.running.by_slot(),
            schedules=tuple(one.name for one in env.handlers.schedules()),
            state=ProcessState.FENCED if env.health.fenced else self.state,
            quiet=env.health.quiet,
            loop_lag_ms=round(env.health.loop_lag_ms, 1),
            abandoned_threads=env.threads.abandoned,
            closed_kinds=tuple(sorted(refused)),
            gates=tuple(env.handlers.gates()),
            priced_by_payload=tuple(sorted(env.handlers.priced_by_payload)),
            alone_kinds=tuple(kind for kind in env.handlers.kinds() if env.max_crashes(kind) == 1),
            poll_ms=env.config.poll_ms,
            wakes_proven=env.storage.wakes_proven,
            loops={
                name: loop.last_success_us
                for name, loop in list(env.health.loops.items())
                if loop.last_success_us is not None
            },
        )

    # On the event loop

    def _accepted(self, answer: BeatAnswer, began_us: int, waiters: list[asyncio.Future[None]]) -> None:
        env, health = self.env, self.env.health
        if env.silent_us() >= env.config.stale_s * 1e6:  # others may have taken its slots over
            for line in env.exchanger.lines.values():
                line.supervisor.doubt()
        late = began_us - health.last_beat_us > 2 * round(env.config.heartbeat_s * 1e6)
        if late and health.beats:
            health.reap_not_before_us = env.clock.elapsed_us() + round(env.config.stale_s * 1e6)
        health.last_beat_us = began_us
        health.beats += 1
        if health.claims_stopped or health.fenced:
            self.env.observer.happened("unfenced")
            log.warning("unfenced: the store answers again")
            health.claims_stopped = health.fenced = False
        self._apply(answer)
        self._follow(answer.wish)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = [waiter for waiter in self._waiters if not waiter.done()]
        env.exchanger.poke()

    def _apply(self, answer: BeatAnswer) -> None:
        running = self.env.running
        for claimed in answer.lost:
            run = running.get(claimed)
            if run is None or run.committing or run.committed or self.env.exchanger.knows_outcome(claimed):
                continue  # it may be over by its owner's own word; if not, the next beat says so again
            run.lose()
        for run in running:
            if run.job.id in answer.cancel_requested:
                run.cancel_by_user()
        self._release_strays(answer.strays)

    def _follow(self, wish: ProcessWish | None) -> None:
        """Do what an operator asks."""
        quiet = wish is ProcessWish.QUIET
        if quiet is not self.env.health.quiet:
            self.env.health.quiet = quiet
            if quiet:
                log.info("quieted: no more jobs are claimed")
            else:
                log.info("resumed: jobs are claimed again")
            self._kick.set()  # says so
        if wish is ProcessWish.STOP and not self.env.stopping.is_set():
            log.info("stop_asked: an operator ends this worker")
            self.env.stopping.set()

    def _release_strays(self, strays: frozenset[Claimed]) -> None:
        """Give back claims that nobody here knows: their answer was lost on the way."""
        now, oldest = asyncio.get_running_loop().time(), self.env.exchanger.oldest_in_flight
        seen = {claimed: self._strays.get(claimed, (0, now)) for claimed in strays}
        self._strays = {
            claimed: (beats + 1, since)
            for claimed, (beats, since) in seen.items()
            if not self.env.exchanger.knows(claimed)
        }
        for claimed, (beats, since) in list(self._strays.items()):
            if beats >= STRAY_BEATS and (oldest is None or oldest > since):  # no answer on its way can hold it
                log.warning("stray_released job_id=%s fence=%d", claimed.job_id, claimed.fence)
                self.env.exchanger.release_stray(claimed)
                del self._strays[claimed]

    def _give_up(self, error: StoreUnavailable) -> None:
        """The store must not be used any longer: the process ends."""
        self.env.health.fatal = error
        self.env.stopping.set()

    def check_silence(self) -> None:
        """Stop claiming, then interrupt the handlers, before another process may take the jobs."""
        config, health = self.env.config, self.env.health
        silent_s = self.env.silent_us() / 1e6
        if silent_s >= config.stale_s - 2 * config.heartbeat_s and not health.claims_stopped:
            health.claims_stopped = True
            self.env.observer.happened("claims_stopped", silent_s=silent_s)
            log.error("claims_stopped: no heartbeat was accepted for %.1f s", silent_s)
        if silent_s >= config.stale_s - config.heartbeat_s and not health.fenced:
            health.fenced = True
            health.counts["fenced"] += 1
            self.env.observer.count("fenced")
            self.env.observer.happened("fenced", silent_s=silent_s)
            log.error("fenced: no heartbeat was accepted for %.1f s; handlers are interrupted", silent_s)
            for run in self.env.running:
                run.fenced = True
                run.interrupt(CancelReason.LOST_OWNERSHIP)
