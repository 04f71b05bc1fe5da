"""One child process, as the worker sees it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from forge_jobs.runtime.children.pipes import Inlet, Outlet

TERM_S: Final = 2.0
STOP_LOOK_S: Final = 0.5
"""How long after a child was asked to stop, not by us, it is looked whether the worker is asked too: a service manager
tells both in the same moment, and then nothing went wrong with the job."""
GONE_S: Final = 3.0
"""After this long nothing is left of a group that was told to end, SIGKILL included."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: by itself with `code`, or by `signal`. Exactly one is set."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of_status(cls, status: int) -> Exit:
        """From what waitpid says."""
        if os.WIFSIGNALED(status):
            return cls(signal=os.WTERMSIG(status))
        return cls(code=os.WEXITSTATUS(status))

    @property
    def asked_to_stop(self) -> bool:
        """Whether it ended by a signal that asks for that."""
        return self.signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit {self.code}"
        try:
            return f"killed by signal {self.signal} ({signal.Signals(self.signal).name})"
        except ValueError:
            return f"killed by signal {self.signal}"


class Child:
    """A process in a session and group of its own. Made by `Children.start`.

    `stdin` is there if it was asked for. `inlet` and `outlet` are the private pipes, which the child knows as
    descriptors 3 (to read) and 4 (to write), if they were asked for.
    """

    def __init__(
        self,
        number: int,
        stdin: Inlet | None,
        stdout: Outlet,
        stderr: Outlet,
        private: tuple[Inlet, Outlet] | None,
        end: Callable[[int, float], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.inlet: Inlet | None = private[0] if private else None
        self.outlet: Outlet | None = private[1] if private else None
        self.pid = 0
        self.exit: Exit | None = None
        """Set once it has ended."""
        self._end = end
        self._exited: asyncio.Future[Exit] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()

    @property
    def running(self) -> bool:
        return self.exit is None

    async def wait(self) -> Exit:
        """How it ended, once it has. Its output may not be read to the end yet: see `Outlet.read_rest`."""
        return await asyncio.shield(self._exited)

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Call back on the event loop when it has ended, soon if it has already."""
        self._exited.add_done_callback(lambda future: callback(future.result()))

    def begin_end(self, term_s: float = TERM_S) -> None:
        """Have its whole group ended: SIGTERM now, SIGKILL in `term_s`. Does not wait; may be called again."""
        if not self._gone.done():
            self._end(self.number, term_s)

    async def end(self, term_s: float = TERM_S) -> None:
        """End its whole group and wait until nothing is left of it, at most `term_s` + 1 s.

        A process that left the group (a daemon) is not waited for, whatever pipes it holds.
        """
        self.begin_end(term_s)
        await self.until_gone(term_s + GONE_S - TERM_S)

    async def until_gone(self, within_s: float) -> bool:
        """Whether nothing was left of its group within `within_s`."""
        done, _ = await asyncio.wait([self._gone], timeout=within_s)
        return bool(done)

    def close(self) -> None:
        """Close this side of all its pipes."""
        for pipe in (self.stdin, self.stdout, self.stderr, self.inlet, self.outlet):
            if pipe is not None:
                pipe.close()

    # For the guard's voice

    def has_exited(self, how: Exit) -> None:
        if self.exit is None:
            self.exit = how
            self._exited.set_result(how)

    def is_gone(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def __repr__(self) -> str:
        return f"Child(pid={self.pid}, {'running' if self.exit is None else self.exit})"
