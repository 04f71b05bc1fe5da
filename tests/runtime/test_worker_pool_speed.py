"""How fast one child of a pool answers, beside what a bare pipe to the same program reaches in the same run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import Final

import pytest

from forge_jobs.handlers import WorkerPool
from forge_jobs.ids import new_id
from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.running import Run
from forge_jobs.runtime.worker import Slot
from forge_jobs.storage.types.job import JobRecord

from .world import World

ROUNDS: Final = 2_000
SERIES: Final = 7
JOBS_PER_S: Final = 3_000
ECHO: Final = """
import sys
read, write, flush = sys.stdin.readline, sys.stdout.write, sys.stdout.flush
while line := read():
    write('{"id":"%s","status":"ok"}\\n' % line[7:33])
    flush()
"""


@pytest.mark.slow
async def test_one_child_answers_three_thousand_jobs_a_second(world: World) -> None:
    pool = WorkerPool("echo", [sys.executable, "-I", "-c", ECHO])
    world.handlers.register(pool)
    env = (await world.work()).env
    handler = env.handlers.get("echo")
    assert handler is not None
    job = JobRecord(new_id(), "default", "echo", "{}", 1, 5, 0, 0, 1, 0, 0, 0, env.clock.now_us(), None, None, None)
    slot = Slot(env, env.exchanger.lines["default"], 0)
    payload = {"user": 7, "text": "hello"}
    series, bare = [], []
    for _ in range(SERIES):
        began = time.perf_counter()
        for _ in range(ROUNDS):
            await pool.run(JobCtx(Run(env, slot, job, handler, alone=False)), payload)
        series.append(ROUNDS / (time.perf_counter() - began))
        bare.append(bare_pipe(job.id))
    print(f"pool {statistics.median(series):.0f} jobs/s, bare pipe {statistics.median(bare):.0f} round trips/s")
    assert max(series) > JOBS_PER_S
    assert statistics.median(series) > 0.08 * statistics.median(bare)


def bare_pipe(job_id: str) -> float:
    """Round trips per second with blocking reads and writes, and nothing else."""
    line = f'{{"id":"{job_id}","payload":{{"user":7,"text":"hello"}},"kind":"echo","attempt":1}}\n'.encode()
    with subprocess.Popen(
        [sys.executable, "-I", "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        ask, answer = child.stdin.fileno(), child.stdout.fileno()
        os.write(ask, line)
        os.read(answer, 4096)
        began = time.perf_counter()
        for _ in range(ROUNDS):
            os.write(ask, line)
            os.read(answer, 4096)
        took = time.perf_counter() - began
        child.stdin.close()
    return ROUNDS / took
