"""What the demo shows while it runs: a live picture on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from forge_jobs.demo.jobs import FILE, MODULE
from forge_jobs.demo.stage import Snapshot
from forge_jobs.storage.types.job import JobStatus

PLAIN_EVERY_S: Final = 2.0
BAR_WIDTH: Final = 44
PER_SECOND: Final = 8


class PlainDisplay:
    """Lines only, for a pipe or a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._shown_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        self._console.print(_stamped(self._started, line), soft_wrap=True)

    def show(self, seen: Snapshot) -> None:
        if seen.elapsed_s - self._shown_s >= PLAIN_EVERY_S:
            self._shown_s = seen.elapsed_s
            files = f"{seen.ended(FILE)}/{seen.files} files, {seen.ended(MODULE)}/{seen.total(MODULE)} modules"
            self.say(f"  {files}; {_by_status(seen)}; upstream {_answers(seen)}")


class LiveDisplay:
    """A progress bar and counters that stay at the bottom, events above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._live = Live(console=console, refresh_per_second=PER_SECOND, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        self._console.print(_stamped(self._started, line))

    def show(self, seen: Snapshot) -> None:
        self._live.update(_picture(seen))


def display_for(console: Console) -> PlainDisplay | LiveDisplay:
    """The display that fits where the console writes to."""
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(console)


def _picture(seen: Snapshot) -> Group:
    bars = Table.grid(padding=(0, 2))
    for name, kind, total in (("files", FILE, seen.files), ("modules", MODULE, seen.total(MODULE))):
        ended = seen.ended(kind)
        bars.add_row(name, ProgressBar(total=max(total, 1), completed=ended, width=BAR_WIDTH), f"{ended}/{total}")
    workers = "   ".join(f"{name} runs {len(seen.of_worker(name))}" for name in seen.workers)
    lines = (_by_status(seen), f"upstream {_answers(seen)}", workers)
    return Group(bars, *(Text(line, style="dim") for line in lines))


def _by_status(seen: Snapshot) -> str:
    return ", ".join(f"{seen.count(status)} {status.replace('_', ' ')}" for status in JobStatus)


def _answers(seen: Snapshot) -> str:
    return ", ".join(f"{status}: {count}" for status, count in sorted(seen.answers.items())) or "not asked yet"


def _stamped(started: float, line: str) -> Text:
    return Text.assemble((f"{time.monotonic() - started:5.1f}s ", "cyan"), line)
