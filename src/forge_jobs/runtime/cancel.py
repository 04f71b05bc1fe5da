"""The cancel token a handler watches."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Final

_LOCK: Final = threading.Lock()
"""Between a token that fires and somebody who begins to wait for it. One for all tokens: it is held for nanoseconds,
and making a lock for every job would cost more."""


class CancelReason(StrEnum):
    """Why a handler is asked to stop."""

    USER = "user"
    SHUTDOWN = "shutdown"
    PAUSE = "pause"
    LOST_OWNERSHIP = "lost_ownership"
    TIMEOUT = "timeout"


class CancelToken:
    """Tells a handler to stop. Latches: the first reason stays. Safe to use from any thread and any event loop."""

    __slots__ = ("_reason", "_told")

    def __init__(self) -> None:
        self._reason: CancelReason | None = None
        self._told: list[Callable[[CancelReason], None]] | None = None
        """What to call when it fires; made when somebody asks for that."""

    @property
    def is_cancelled(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> CancelReason | None:
        return self._reason

    async def wait(self) -> CancelReason:
        """Wait until the handler is asked to stop; the reason."""
        if self._reason is None:
            loop = asyncio.get_running_loop()
            fired: asyncio.Future[None] = loop.create_future()

            def tell() -> None:
                if not fired.done():
                    fired.set_result(None)

            def tell_its_loop(reason: CancelReason) -> None:
                try:
                    loop.call_soon_threadsafe(tell)
                except RuntimeError:  # the loop was closed, and whoever waited in it is gone
                    pass

            self.on_fire(tell_its_loop)
            try:
                await fired
            finally:
                self.forget(tell_its_loop)
        assert self._reason is not None
        return self._reason

    async def fired_within(self, seconds: float) -> bool:
        """Whether the handler is asked to stop before `seconds` are over."""
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            pass
        return self.is_cancelled

    def wait_sync(self, timeout: float | timedelta | None = None) -> CancelReason | None:
        """The same for a handler that is a plain function: blocks its thread for at most `timeout` seconds.

        None if it was not asked to stop in that time, so it does for `time.sleep` too.
        """
        if self._reason is None:
            fired = threading.Event()

            def tell(reason: CancelReason) -> None:
                fired.set()

            self.on_fire(tell)
            try:
                fired.wait(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout)
            finally:
                self.forget(tell)
        return self._reason

    def raise_if_cancelled(self) -> None:
        """End the run here if it was asked to stop.

        Raises:
            asyncio.CancelledError: it was.
        """
        if self._reason is not None:
            raise asyncio.CancelledError(self._reason.value)

    def fire(self, reason: CancelReason) -> bool:
        """Ask the handler to stop. For the runtime; False if it was asked before."""
        with _LOCK:
            if self._reason is not None:
                return False
            self._reason = reason
            told, self._told = self._told, None
        for tell in told or ():
            tell(reason)
        return True

    def on_fire(self, callback: Callable[[CancelReason], None]) -> None:
        """Call `callback` where the token fires (on the worker's event loop), or at once if it has fired. It must
        not raise."""
        with _LOCK:
            reason = self._reason
            if reason is None:
                if self._told is None:
                    self._told = []
                self._told.append(callback)
        if reason is not None:
            callback(reason)

    def forget(self, callback: Callable[[CancelReason], None]) -> None:
        """Do not call `callback` any longer."""
        with _LOCK:
            if self._told is not None and callback in self._told:
                self._told.remove(callback)
