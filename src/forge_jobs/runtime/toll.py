"""Which kinds this process may claim at the moment, as far as rate limits go.

A scope that had no tokens is left alone until the store said it has some: its kinds are not even asked for, so a
hundred thousand jobs that wait for their budget cost the claim nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from forge_jobs.storage.protocol import Claim
from forge_jobs.storage.types.job import JobRecord
from forge_jobs.storage.types.rate_limit import Gate

if TYPE_CHECKING:
    from forge_jobs.runtime.env import RuntimeEnv

LONGEST_S: Final = 5.0
"""After this a shut scope is asked again: somebody may have opened it, and the wake that says so is only a hint."""
NEVER: Final = float("inf")


class Toll:
    """The gates of this process's kinds, and until when each scope is shut."""

    def __init__(self, env: RuntimeEnv) -> None:
        self._env = env
        self._version = -1
        self._kinds: tuple[str, ...] = ()
        self._gates: tuple[Gate, ...] = ()
        self._shut: dict[str, float] = {}

    def passing(self, now: float) -> tuple[tuple[str, ...], tuple[Gate, ...], float]:
        """The kinds to ask for, their gates, and when the next shut scope opens."""
        self._read_registry()
        if not self._shut:
            return self._kinds, self._gates, NEVER
        self._shut = {scope: until for scope, until in self._shut.items() if until > now}
        shut = {gate.kind for gate in self._gates if gate.scope in self._shut}
        if not shut:
            return self._kinds, self._gates, NEVER
        return (
            tuple(kind for kind in self._kinds if kind not in shut),
            tuple(gate for gate in self._gates if gate.kind not in shut),
            min(self._shut.values()),
        )

    def learn(self, claim: Claim, now: float) -> None:
        """What the store said of the scopes."""
        for scope, wait_us in claim.limited:
            self._shut[scope] = now + min(wait_us / 1e6, LONGEST_S)

    @property
    def opens_at(self) -> float:
        """When the next shut scope has tokens again."""
        return min(self._shut.values(), default=NEVER)

    def forget(self) -> None:
        """A limit was changed: ask again."""
        self._shut.clear()

    def by_payload(self, jobs: Sequence[JobRecord]) -> bool:
        """Whether what some of the jobs cost is known only from their payload."""
        priced = self._env.handlers.priced_by_payload
        return bool(priced) and any(job.kind in priced for job in jobs)

    def _read_registry(self) -> None:
        handlers = self._env.handlers
        if self._version != handlers.version:
            self._version = handlers.version
            self._kinds = tuple(handlers.kinds())
            self._gates = tuple(handlers.gates())
