"""Taking the measures: every one several times, the raw limit next to our number each time, the median of both."""

from __future__ import annotations

import gc
import logging
import statistics
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from forge_jobs.bench.environment import Environment, look_around
from forge_jobs.bench.measure import Measure, Number, Samples, Sizes
from forge_jobs.bench.measures import MEASURES
from forge_jobs.bench.scratch import Scratch
from forge_jobs.bench.sqlite.scratch import sqlite_scratch
from forge_jobs.storage.open import Backend, check_driver

log = logging.getLogger("forge_jobs.bench")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: how many jobs, how often, which numbers (all if none is named).

    directory: where files are made, on SQLite. database: the server's database where schemas are made, else a server is
    started.
    """

    backend: Backend = Backend.SQLITE

    jobs: int
    repeat: int
    only: Collection[str] = ()
    directory: Path | None = None
    database: str | None = None

    def wanted(self, measure: Measure) -> list[Number]:
        """The numbers of a measure that are to be taken."""
        return [n for n in measure.numbers_on(self.backend) if not self.only or n.name in self.only]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One number: medians over the repetitions. `ratio` is value / limit; `error` says why there is no value."""

    name: str
    backend: str
    value: float | None
    unit: str
    limit: float | None
    ratio: float | None
    target: str | None
    met: bool | None
    samples: list[float]
    limit_samples: list[float]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run found."""

    environment: Environment
    results: list[Result]

    @property
    def failed(self) -> bool:
        return any(result.error is not None for result in self.results)


class Display(Protocol):
    """Is told how the run gets on."""

    def begun(self, environment: Environment, steps: int) -> None: ...

    def taking(self, names: Sequence[str], repetition: int) -> None: ...

    def taken(self, repetition: int, samples: Samples) -> None: ...

    def failed(self, names: Sequence[str], error: str) -> None: ...


def run(plan: Plan, display: Display, check: Callable[[], None]) -> Report:
    """Take the measures of `plan`. One that fails leaves its error in its results, and the others go on.

    check: is called before each repetition, and ends the run by raising.
    """
    with _scratch(plan) as scratch:
        environment = look_around(scratch, plan.repeat)
        steps = [(measure, numbers) for measure in MEASURES if (numbers := plan.wanted(measure))]
        display.begun(environment, plan.repeat * len(steps))
        results: list[Result] = []
        for measure, numbers in steps:
            results += _take(measure, numbers, plan.repeat, scratch, display, check)
        return Report(environment, results)


def _scratch(plan: Plan) -> AbstractContextManager[Scratch]:
    """Where the stores of the run are made.

    Raises:
        ConfigError: the driver of the backend is not installed.
    """
    sizes = Sizes(plan.jobs)
    match plan.backend:
        case Backend.SQLITE:
            return sqlite_scratch(plan.directory, sizes)
        case Backend.POSTGRESQL:
            check_driver(plan.backend)
            from forge_jobs.bench.postgres.scratch import postgres_scratch

            return postgres_scratch(plan.database, sizes)


def _take(
    measure: Measure,
    numbers: list[Number],
    repeat: int,
    scratch: Scratch,
    display: Display,
    check: Callable[[], None],
) -> list[Result]:
    names = [number.name for number in numbers]
    rounds: list[Samples] = []
    error: str | None = None
    for repetition in range(1, repeat + 1):
        display.taking(names, repetition)
        gc.collect()  # no measure pays for the leftovers of another
        check()
        try:
            samples = measure.sample(scratch)
        except Exception as fault:
            log.debug("measure_fault names=%s", names, exc_info=True)
            error = f"{type(fault).__name__}: {fault}"
            display.failed(names, error)
            break
        rounds.append(samples)
        display.taken(repetition, {name: samples[name] for name in names})
    return [_result(number, scratch.backend, rounds, error) for number in numbers]


def _result(number: Number, backend: Backend, rounds: list[Samples], error: str | None) -> Result:
    goal = number.goal_on(backend)
    target = None if goal is None else goal.target
    samples = [taken[number.name] for taken in rounds]
    values = [sample.value for sample in samples]
    limits = [sample.limit for sample in samples if sample.limit is not None]
    value = _median(values) if error is None else None
    limit = _median(limits) if error is None else None
    ratio = round(value / limit, 4) if value is not None and limit else None
    return Result(
        name=number.name,
        backend=backend.value,
        value=value,
        unit=number.unit,
        limit=limit,
        ratio=ratio,
        target=None if target is None else str(target),
        met=None if target is None or value is None else target.is_met(value, ratio),
        samples=[_rounded(value) for value in values],
        limit_samples=[_rounded(limit) for limit in limits],
        error=error,
    )


def _median(values: list[float]) -> float | None:
    return _rounded(statistics.median(values)) if values else None


def _rounded(value: float) -> float:
    return round(value, 1 if value >= 1000 else 4)
