"""Four processes on one budget: in every window no more is granted than it allows, however many ask, and fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from forge_jobs import Storage
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration

from .stage import TESTS, Stage
from .worker_main import CLOCK_AHEAD

PROCESSES: Final = 4
SCOPE: Final = "api"
RIGHT: Final = (0.0,) * PROCESSES
FIVE_MINUTES: Final = (0.0, 300.0, -300.0, 0.0)
LEAST_PER_S: Final = 1_000
"""Of an ample budget; a quiet machine does many times that."""


def spent(url: str, callers: int, seconds: float, clocks_ahead_s: Sequence[float] = RIGHT) -> list[float]:
    """When each grant of four processes was made, by the store's time, sorted."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "process.spender", url, SCOPE, str(callers), str(seconds)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=TESTS,
                    env={**os.environ, CLOCK_AHEAD: str(ahead_s)},
                )
            )
            for ahead_s in clocks_ahead_s
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("begin\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes)
    return sorted(at for text in said for at in json.loads(text))


def most_above(grants: Sequence[float], refill_per_s: float) -> float:
    """The largest burst in any window, beyond what is refilled in it: of all windows, in one pass."""
    most, least_before = 0.0, float("inf")
    for number, at in enumerate(grants):
        level = number - refill_per_s * at
        least_before = min(least_before, level)
        most = max(most, level - least_before + 1)
    return most


@pytest.fixture(params=["on_a_file", "on_postgresql"])
def stage(request: pytest.FixtureRequest) -> Stage:
    found: Stage = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("clocks", [RIGHT, FIVE_MINUTES], ids=["right-clocks", "wrong-clocks"])
async def test_in_no_window_is_more_granted_than_the_budget_allows(
    stage: Stage, storage: Storage, clocks: tuple[float, ...]
) -> None:
    if clocks is FIVE_MINUTES and storage.url.startswith("sqlite"):
        clocks = RIGHT  # one file is one host, which has one clock
    capacity, refill = 5, 20.0
    await storage.rate_limits.ensure(RateLimitDeclaration(scope=SCOPE, capacity=capacity, refill_per_s=refill))
    grants = spent(stage.url, callers=10, seconds=2, clocks_ahead_s=clocks)
    assert most_above(grants, refill) <= capacity + 1e-6
    assert len(grants) >= capacity + refill, "and the budget is used"


async def test_an_ample_budget_is_granted_fast(stage: Stage, storage: Storage) -> None:
    await storage.rate_limits.ensure(RateLimitDeclaration(scope=SCOPE, capacity=10**8, refill_per_s=10**6))
    seconds = 2.0
    grants = spent(stage.url, callers=100, seconds=seconds)
    assert len(grants) / seconds >= LEAST_PER_S, f"{len(grants) / seconds:.0f} grants a second"


def test_the_measure_of_bursts_finds_one(tmp_path: Path) -> None:
    assert most_above([0.0, 0.0, 0.0, 0.1, 0.2], 10) == pytest.approx(3)
    assert most_above([0.0, 5.0, 5.0, 5.0, 5.05], 10) == pytest.approx(3.5)
