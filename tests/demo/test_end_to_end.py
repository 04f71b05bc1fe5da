"""The demo itself, small: real processes, a real crash, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from forge_jobs.demo.conductor import conduct
from forge_jobs.demo.plan import Plan
from forge_jobs.demo.stage import Snapshot
from forge_jobs.demo.verdict import judge


class Recorder:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.seen: list[Snapshot] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def show(self, seen: Snapshot) -> None:
        self.seen.append(seen)


@pytest.mark.timeout(90)
async def test_a_small_demo_passes_its_own_check(tmp_path: Path) -> None:
    display = Recorder()
    facts = await conduct(Plan(items=80, budget_per_s=10, time_limit_s=60), display, tmp_path)
    assert [check for check in judge(facts) if not check.holds] == []
    assert [line for line in display.lines if line.startswith("killed worker-2 (SIGKILL)")]
    assert [line for line in display.lines if line.startswith("told worker-1 to stop (SIGTERM)")]
    assert display.seen[-1].is_over
    assert {path.name for path in tmp_path.iterdir()} >= {"jobs.db", "results.db", "upstream.jsonl", "worker-1.log"}


@pytest.mark.timeout(60)
def test_a_stopped_demo_leaves_no_process_and_no_file_behind(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "forge_jobs", "demo", "--items", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert demo.stdout is not None
    with demo.stdout:
        assert any("enqueued one job" in line for line in demo.stdout)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        last = demo.stdout.read()
    assert demo.wait() == 128 + signal.SIGINT
    assert "stopped" in last
    assert len(children) == 4  # upstream, dashboard, two workers
    assert not psutil.wait_procs(children, timeout=0)[1]
    left = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert left == [], "nothing but the directory for sockets, which all programs of a user share"
    assert [path.name for path in tmp_path.iterdir()] in ([], [f"forge-jobs-{os.getuid()}"])
