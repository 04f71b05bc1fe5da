"""The cancel token a handler watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum


class CancelReason(StrEnum):
    """Why a handler is asked to stop."""

    USER = "user"
    SHUTDOWN = "shutdown"
    PAUSE = "pause"
    LOST_OWNERSHIP = "lost_ownership"
    TIMEOUT = "timeout"


class CancelToken:
    """Tells a handler to stop. Latches: the first reason stays. Reading it is safe from any thread."""

    __slots__ = ("_callbacks", "_event", "_reason")

    def __init__(self) -> None:
        self._reason: CancelReason | None = None
        self._event: asyncio.Event | None = None
        self._callbacks: list[Callable[[CancelReason], None]] = []

    @property
    def is_cancelled(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> CancelReason | None:
        return self._reason

    async def wait(self) -> CancelReason:
        """Wait until the handler is asked to stop; the reason."""
        if self._reason is None:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
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

    def on_fire(self, callback: Callable[[CancelReason], None]) -> None:
        """Call `callback` on the event loop when the handler is asked to stop; now if it was. It must not raise."""
        if self._reason is not None:
            callback(self._reason)
        else:
            self._callbacks.append(callback)

    def raise_if_cancelled(self) -> None:
        """End the run here if it was asked to stop.

        Raises:
            asyncio.CancelledError: it was.
        """
        if self._reason is not None:
            raise asyncio.CancelledError(self._reason.value)

    def fire(self, reason: CancelReason) -> bool:
        """Ask the handler to stop. For the runtime; False if it was asked before."""
        if self._reason is not None:
            return False
        self._reason = reason
        if self._event is not None:
            self._event.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(reason)
        return True
