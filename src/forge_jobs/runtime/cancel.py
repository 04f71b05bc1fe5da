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
        self._told: list[Callable[[], object]] | None = None
        """What to call when it fires; made when somebody waits."""

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

            def tell_its_loop() -> None:
                try:
                    loop.call_soon_threadsafe(tell)
                except RuntimeError:  # the loop was closed, and whoever waited in it is gone
                    pass

            try:
                if self.when_fired(tell_its_loop):
                    await fired
            finally:
                self.forget(tell_its_loop)
        assert self._reason is not None
        return self._reason

    def wait_sync(self, timeout: float | timedelta | None = None) -> CancelReason | None:
        """The same for a handler that is a plain function: blocks its thread for at most `timeout` seconds.

        None if it was not asked to stop in that time, so it does for `time.sleep` too.
        """
        if self._reason is None:
            fired = threading.Event()
            try:
                if self.when_fired(fired.set):
                    fired.wait(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout)
            finally:
                self.forget(fired.set)
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
            tell()
        return True

    def when_fired(self, tell: Callable[[], object]) -> bool:
        """Call `tell` from whatever thread fires the token; False, and nothing, if it has fired already."""
        with _LOCK:
            if self._reason is not None:
                return False
            if self._told is None:
                self._told = []
            self._told.append(tell)
            return True

    def forget(self, tell: Callable[[], object]) -> None:
        """Do not call `tell` any longer."""
        with _LOCK:
            if self._told is not None and tell in self._told:
                self._told.remove(tell)
