"""Named places where a test can make a process die, stop or fail. In production a look-up in an empty dict.

`FORGE_FAILPOINTS="settle.before_commit=kill"` arms places when a worker starts; several are joined by `;`.
Actions: `kill` (SIGKILL to itself), `stop` (SIGSTOP to itself), `error` (raise), and `action@n` for the n-th hit.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping

ENVIRONMENT = "FORGE_FAILPOINTS"

armed: dict[str, tuple[str, int]] = {}
"""What each place does, and at which hit; empty in production."""
_hits: dict[str, int] = {}
_lock = threading.Lock()


class FailpointError(OSError):
    """What the action `error` raises."""


def arm(place: str, action: str) -> None:
    """Arm one place; see the module's text for actions."""
    verb, _, nth = action.partition("@")
    if verb not in ("kill", "stop", "error"):
        raise ValueError(f"failpoint action {action!r} is not kill, stop or error")
    armed[place] = (verb, int(nth or 1))
    _hits.pop(place, None)


def disarm() -> None:
    """Disarm every place."""
    armed.clear()
    _hits.clear()


def arm_from(environment: Mapping[str, str]) -> None:
    """Arm what `FORGE_FAILPOINTS` names."""
    for part in environment.get(ENVIRONMENT, "").split(";"):
        if part.strip():
            place, _, action = part.strip().partition("=")
            arm(place, action)


def hit(place: str) -> None:
    """Pass a named place; does what it is armed with."""
    if armed and place in armed:
        _act(place)


def _act(place: str) -> None:
    with _lock:
        verb, nth = armed[place]
        _hits[place] = _hits.get(place, 0) + 1
        if _hits[place] != nth:
            return
    if verb == "error":
        raise FailpointError(f"failpoint {place}")
    os.kill(os.getpid(), signal.SIGKILL if verb == "kill" else signal.SIGSTOP)
