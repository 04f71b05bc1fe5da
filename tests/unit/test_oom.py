"""Whether the kernel ended a process because memory was short, from what cgroups tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_jobs.runtime.executors.oom import oom_kills


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/system.slice/app.service", "system.slice/app.service/memory.events"),
        ("4:cpu,memory:/app", "memory/app/memory.oom_control"),
        ("0::/only/on/the/host", "memory.events"),
    ],
)
def test_kills_are_counted_wherever_the_system_keeps_them(tmp_path: Path, line: str, file: str) -> None:
    groups, counter = tmp_path / "cgroup", tmp_path / file
    groups.write_text(f"7:pids:/x\n{line}\n")
    counter.parent.mkdir(parents=True, exist_ok=True)
    counter.write_text("low 0\noom 1\noom_kill 3\n")
    assert oom_kills(groups, tmp_path) == 3


def test_it_is_not_known_where_nothing_is_told(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    assert oom_kills(groups, tmp_path) is None
    groups.write_text("0::/\n")
    assert oom_kills(groups, tmp_path) is None
