"""How a run gets on, on stderr: a bar on a terminal, a line a repetition elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from forge_jobs.bench.environment import Environment
from forge_jobs.bench.measure import Samples
from forge_jobs.bench.measures import MEASURES

UNITS = {number.name: number.unit for measure in MEASURES for number in measure.numbers}


class RunDisplay:
    """Implements `Display` on a rich console; use it as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("getting ready", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begun(self, environment: Environment, steps: int) -> None:
        self._bar.update(self._task, total=steps)
        for line in described(environment):
            self._say(line)

    def taking(self, names: Sequence[str], repetition: int) -> None:
        self._bar.update(self._task, description=f"{', '.join(names)} #{repetition}")

    def taken(self, repetition: int, samples: Samples) -> None:
        self._bar.advance(self._task)
        for name, sample in samples.items():
            of_limit = "" if sample.limit is None else f" of {shown(sample.limit)} ({sample.value / sample.limit:.2f}×)"
            self._say(f"{name} #{repetition}: {shown(sample.value)} {UNITS[name]}{of_limit}")

    def failed(self, names: Sequence[str], error: str) -> None:
        self._say(f"{', '.join(names)}: failed: {error}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def described(environment: Environment) -> list[str]:
    """The environment in a few lines for people."""
    versions = ", ".join(f"{name} {number}" for name, number in environment.versions.items())
    load = " ".join(f"{load:g}" for load in environment.load)
    settings = ", ".join(f"{name}={value}" for name, value in environment.settings.items())
    file_system = f" ({environment.file_system})" if environment.file_system else ""
    lines = [
        f"{environment.cpu}, {environment.cores} cores, {environment.memory_mib:,} MiB; load {load}",
        f"{environment.system}; {versions}",
        f"{environment.backend} in {environment.where}{file_system}, durability {environment.durability} ({settings})",
        f"{environment.jobs:,} jobs, median of {environment.repeat}",
    ]
    if environment.in_memory:
        lines.append(f"warning: {environment.file_system} keeps nothing; give --dir on a real disk for durable numbers")
    return lines


def shown(value: float) -> str:
    """A number with three or four digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
