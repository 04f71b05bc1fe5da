"""What a measure is, what it gives, and how large it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from forge_jobs.storage.open import Backend

if TYPE_CHECKING:
    from forge_jobs.bench.scratch import Scratch

QUEUE: Final = "bench"
NOOP: Final = "noop"
PAYLOAD: Final[dict[str, object]] = {"user_id": 12345, "template": "welcome", "args": [1, 2, 3], "note": "x" * 40}
"""About 100 bytes as stored."""
FULL_JOBS: Final = 50_000
"""The number of jobs at which every size is as published."""
BATCH: Final = 100


class BenchError(Exception):
    """A measure could not be taken."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition: our number, and the limit that was measured beside it, if there is one."""

    value: float
    limit: float | None = None


Samples: TypeAlias = Mapping[str, Sample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a number should be: the ratio to the limit, or with `of_value` the number itself."""

    bound: float
    at_most: bool = False
    of_value: bool = False

    def is_met(self, value: float, ratio: float | None) -> bool:
        number = value if self.of_value or ratio is None else ratio
        return number <= self.bound if self.at_most else number >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}{'' if self.of_value else '×'}"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a number is held against on one backend: where it should be, and a limit that is measured right before it,
    unless the measure itself takes one meanwhile."""

    target: Target | None = None
    limit: Callable[[Scratch], float] | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A number that a measure gives, with its goal on each backend; without one it is not taken there."""

    name: str
    unit: str
    sqlite: Goal | None = None
    postgres: Goal | None = None

    def goal_on(self, backend: Backend) -> Goal | None:
        match backend:
            case Backend.SQLITE:
                return self.sqlite
            case Backend.POSTGRESQL:
                return self.postgres


@dataclass(frozen=True, slots=True)
class Measure:
    """Takes one sample of each of its numbers, on stores of its own."""

    numbers: tuple[Number, ...]
    take: Callable[[Scratch], Samples]

    def numbers_on(self, backend: Backend) -> list[Number]:
        return [number for number in self.numbers if number.goal_on(backend) is not None]

    def sample(self, scratch: Scratch) -> Samples:
        """One repetition, limits first."""
        goals = {number.name: number.goal_on(scratch.backend) for number in self.numbers_on(scratch.backend)}
        limits = {name: goal.limit(scratch) for name, goal in goals.items() if goal is not None and goal.limit}
        samples = self.take(scratch)
        return {name: replace(samples[name], limit=limits.get(name, samples[name].limit)) for name in goals}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each measure does, in proportion to `jobs`; never less than what makes a number at all."""

    jobs: int = FULL_JOBS

    @property
    def one_by_one(self) -> int:
        """Jobs of measures that commit each by itself."""
        return max(self.jobs // 20, 20)

    @property
    def small_batches(self) -> int:
        """Jobs of measures with batches of ten or so, and of group commits."""
        return max(self.jobs * 2 // 5, BATCH)

    @property
    def pickups(self) -> int:
        return min(max(self.jobs // 160, 25), 312)

    @property
    def backlog(self) -> int:
        """Pending rows that a claim is to be indifferent to; a million in full."""
        return max(self.jobs * 20, 20_000)

    @property
    def future(self) -> int:
        """Rows of the future in a better priority band."""
        return max(self.jobs * 2, 2_000)

    @property
    def churned(self) -> int:
        """Jobs that are claimed and finished before claims are timed; half a million in full."""
        return max(self.jobs * 10, 2_000)

    @property
    def idle_after_s(self) -> float:
        return 5.0 if self.jobs >= FULL_JOBS // 10 else 0.5

    @property
    def idle_window_s(self) -> float:
        return 10.0 if self.jobs >= FULL_JOBS // 10 else 1.0


def percentile(values: list[float], percent: float) -> float:
    """The nearest rank of `values`, which need not be sorted."""
    ranked = sorted(values)
    rank = min(max(-(-len(ranked) * percent // 100), 1), len(ranked))
    return ranked[int(rank) - 1]
