"""A warning that repeats is logged once a minute, with how often it was left out."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import forge_jobs
from forge_jobs.observe import tell
from forge_jobs.repeats import LIMITED, SUBJECTS, Repeats

SOURCE: Final = Path(forge_jobs.__file__).parent
SELDOM: Final = {
    "ids": "when a millisecond is full",
    "job": "the lines of jobs",
    "lease": "when a lease goes to another",
    "limits": "once a minute by itself",
    "running": "once for each run",
    "settle": "once for each job",
    "unserved": "once a minute by itself",
}


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


class Watch:
    """A logger with limited warnings, a clock to turn, and what passed."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.lines = Lines()
        self.log = logging.getLogger("test.repeats")
        self.log.propagate = False
        self.repeats = Repeats(lambda: self.at_s)
        self.log.addFilter(self.repeats)
        self.log.addHandler(self.lines)


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    yield made
    made.log.removeFilter(made.repeats)
    made.log.removeHandler(made.lines)


def test_the_same_warning_passes_once_a_minute_with_how_many_were_left_out(watch: Watch) -> None:
    for second in range(0, 121, 20):
        watch.at_s = second
        watch.log.warning("beat_refused error=%s silent_s=%.1f", f"another text {second}", second)
    assert watch.lines.texts == [
        "beat_refused error=another text 0 silent_s=0.0",
        "beat_refused error=another text 60 silent_s=60.0 left_out=2",
        "beat_refused error=another text 120 silent_s=120.0 left_out=2",
    ]


def test_a_line_with_fields_says_it_in_its_fields_too(watch: Watch) -> None:
    for second in (0, 1, 61):
        watch.at_s = second
        tell(watch.log, logging.WARNING, "cron_fault", schedule="nightly", error="locked")
    fields = [vars(record)["fields"] for record in watch.lines.records]
    assert [one.get("left_out") for one in fields] == [None, 1]
    assert watch.lines.texts[-1] == "cron_fault schedule=nightly error=locked left_out=1"


def test_another_subject_has_a_line_of_its_own(watch: Watch) -> None:
    for loop in ("reaper", "cron", "reaper"):
        watch.log.warning("loop_fault loop=%s error=%s", loop, "locked")
    tell(watch.log, logging.WARNING, "cron_fault", schedule="a", error="x")
    tell(watch.log, logging.WARNING, "cron_fault", schedule="b", error="x")
    assert len(watch.lines.texts) == 4


def test_what_tells_of_another_job_each_time_always_passes(watch: Watch) -> None:
    for number in range(3):
        tell(watch.log, logging.WARNING, "job_dead", job_id=f"job-{number}", kind="k")
        watch.log.warning("reaped job_id=%s kind=%s queue=%s status=%s", number, "k", "q", "failed")
        watch.log.error("fenced: no heartbeat was accepted for %.1f s", 3.0)
    assert len(watch.lines.texts) == 9


def test_what_is_no_warning_passes_and_so_does_what_ends_the_program(watch: Watch) -> None:
    watch.log.setLevel(logging.DEBUG)
    for _ in range(2):
        watch.log.info("cleaned_up done=%d", 1)
        watch.log.critical("store_replaced path=%s", "x")
    assert len(watch.lines.texts) == 4


def test_a_bounded_number_of_warnings_is_remembered(watch: Watch) -> None:
    for number in range(SUBJECTS + 10):
        watch.log.warning("settings_unreadable queue=%s error=%s", number, "x")
    assert len(watch.repeats._passed) == SUBJECTS


def test_every_logger_that_warns_is_limited_or_known_to_be_seldom() -> None:
    found = set()
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] in ("bench", "demo", "testing", "cli"):
            continue
        text = path.read_text()
        if re.search(r"log\.(warning|error|exception)\(|logging\.(WARNING|ERROR)", text) is None:
            continue
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "logging.getLogger" and call.args:
                name = call.args[0]
                if isinstance(name, ast.Constant) and str(name.value).startswith("forge_jobs."):
                    found.add(str(name.value).removeprefix("forge_jobs."))
    unknown = found - set(LIMITED) - set(SELDOM)
    assert not unknown, f"can warnings of {unknown} repeat? Then they belong into LIMITED of forge_jobs/repeats.py"
    assert set(LIMITED) <= found
