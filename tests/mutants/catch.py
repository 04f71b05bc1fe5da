"""Faults put into the source on purpose, and the tests that must notice each: `make mutants`.

Every mutant is one of the mistakes that queues in the field were bitten by. The source is copied, one place is
changed, and the named tests run against the copy. A mutant that survives makes the run fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """A fault: what it is, where, the text before and after, and the tests that notice it."""

    fault: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


OVERLAY = "storage/sqlite/overlay.sql"
LIMITS = "storage/sql/rate_limits.py"
CONFORMANCE = "tests/conformance/test_sqlite_conformance.py"
MUTANTS = (
    Mutant(
        "finalize without the fence",
        (
            (
                OVERLAY,
                "WHERE forge_jobs.id = claim.key AND forge_jobs.fence = claim.value AND",
                "WHERE forge_jobs.id = claim.key AND",
            ),
            ("storage/sql/settle.py", "if job.state.fence != item.fence:", "if False:"),
        ),
        (CONFORMANCE, "-k", "Finalize or Fence or Late"),
    ),
    Mutant(
        "revive without raising the fence",
        (("storage/lifecycle.py", "fence=job.fence + 1)", "fence=job.fence)"),),
        (CONFORMANCE, "-k", "Reap or Revive"),
    ),
    Mutant(
        "heartbeat by id alone",
        (
            (
                OVERLAY,
                "WHERE forge_jobs.id = claim.key AND forge_jobs.fence = claim.value AND forge_jobs.status = 'in_progress'\n\n-- name: beat_process",
                "WHERE forge_jobs.id = claim.key AND forge_jobs.status = 'in_progress'\n\n-- name: beat_process",
            ),
        ),
        (CONFORMANCE, "-k", "Heartbeat"),
    ),
    Mutant(
        "attempt not counted at the claim",
        ((OVERLAY, "ready = NULL, attempts = attempts + 1, fence", "ready = NULL, fence"),),
        (CONFORMANCE, "-k", "Claim"),
    ),
    Mutant(
        "acknowledged before the commit",
        (
            (
                "storage/sqlite/driver.py",
                '            _pass(group, "before_commit")\n',
                '            self._loop.call_soon_threadsafe(self._deliver, answers)\n            import time as t\n\n            t.sleep(0.05)\n            _pass(group, "before_commit")\n',
            ),
        ),
        ("tests/process/test_enqueuers.py",),
    ),
    Mutant(
        "a new id with every try of a follow-up",
        (
            (
                "runtime/context.py",
                "        if request.id is None:\n            request = replace(request, id=new_id())\n",
                "",
            ),
        ),
        ("tests/runtime/test_context.py",),
    ),
    Mutant(
        "staleness by the wall clock",
        ((OVERLAY, "OR j.beat_us <= :tick - :stale OR j.beat_us > :tick)", "OR j.heartbeat_at <= :now - :stale)"),),
        (CONFORMANCE, "-k", "Reap or Revive or Clock"),
    ),
    Mutant(
        "a late cancel overwrites a finished job",
        (
            (
                "storage/lifecycle.py",
                "    if isinstance(outcome, Done):\n",
                "    if isinstance(outcome, Done) and not job.cancel_requested:\n",
            ),
            ("storage/sql/settle.py", "if done and not _settle_done(tx, done):", "if True:"),
        ),
        (CONFORMANCE, "-k", "Cancel"),
    ),
    Mutant(
        "heartbeats on the event loop",
        (
            (
                "runtime/loops/heartbeat.py",
                "                answer = heart.beat(self._info(), claims)\n",
                "                answer = asyncio.run_coroutine_threadsafe(\n                    asyncio.to_thread(heart.beat, self._info(), claims), self._loop\n                ).result(60)\n",
            ),
        ),
        ("tests/runtime/test_liveness.py",),
    ),
    Mutant(
        "a crash that costs no crash",
        (("storage/lifecycle.py", "crashes=job.crashes + 1, fence=fence)", "fence=fence)"),),
        (CONFORMANCE, "-k", "Reap or Revive or Crash"),
    ),
    Mutant(
        "an interrupt that burns the attempt",
        (
            (
                "storage/lifecycle.py",
                "state=_to(job, JobStatus.PENDING, attempts=_one_less(job)),\n                event=EventType.RELEASED",
                "state=_to(job, JobStatus.PENDING),\n                event=EventType.RELEASED",
            ),
        ),
        (CONFORMANCE, "-k", "Finalize or Release"),
    ),
    Mutant(
        "a pause that the claim ignores",
        (("storage/sql/claim.py", "    if gate is not None:\n", "    if False:\n"),),
        (CONFORMANCE, "-k", "Queue or Pause or Throttle"),
    ),
    Mutant(
        "a tick that is not unique",
        (("storage/sql/queries/schedules.sql", "WHERE forge_ticks.outcome = 'error'\n", ""),),
        (CONFORMANCE, "-k", "Fire or ScheduleFaults"),
    ),
    Mutant(
        "a schedule that is moved on without a look at what it was",
        (
            (
                "storage/sql/queries/schedules.sql",
                "AND revision = :revision AND state = 'active' AND next_fire_at = :was",
                "",
            ),
        ),
        (CONFORMANCE, "-k", "Fire"),
    ),
    Mutant(
        "a store error that turns a schedule off",
        (
            (
                "storage/sql/queries/schedules.sql",
                "SET last_error = :error, last_outcome = 'error', consecutive_errors",
                "SET state = 'disabled', last_error = :error, last_outcome = 'error', consecutive_errors",
            ),
        ),
        (CONFORMANCE, "-k", "ScheduleFaults"),
    ),
    Mutant(
        "a rate limit's bucket in the memory of each process",
        (
            (LIMITS, "BATCH: Final = 1_000\n", "BATCH: Final = 1_000\nMEMORY: dict[int, dict[str, Bucket]] = {}\n"),
            (
                LIMITS,
                "    found = _read(tx, scopes)\n",
                "    mine = MEMORY.get(id(tx._connection), {})\n    found = _read(tx, scopes) | {s: mine[s] for s in scopes if s in mine}\n",
            ),
            (
                LIMITS,
                "    if changed:\n        tx.change_many(",
                "    MEMORY.setdefault(id(tx._connection), {}).update(changed)\n    if False:\n        tx.change_many(",
            ),
        ),
        (CONFORMANCE, "-k", "share_the_budget"),
    ),
)


def main() -> int:
    survivors = []
    for mutant in MUTANTS:
        caught = _caught(mutant)
        print(f"{'caught  ' if caught else 'SURVIVED'}  {mutant.fault}", flush=True)
        if not caught:
            survivors.append(mutant.fault)
    print(f"{len(MUTANTS) - len(survivors)} of {len(MUTANTS)} mutants caught")
    return 1 if survivors else 0


def _caught(mutant: Mutant) -> bool:
    """Whether a named test fails on the changed copy. That they pass on the unchanged source, `make test` shows."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "forge_jobs")
        shutil.copytree(ROOT / "src" / "forge_jobs", copy)
        for name, before, after in mutant.changes:
            text = (copy / name).read_text()
            if before not in text:
                raise SystemExit(
                    f"{name} does not hold the text of the mutant {mutant.fault!r} any more; bring it up to date"
                )
            (copy / name).write_text(text.replace(before, after))
        argv = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *mutant.tests]
        run = subprocess.run(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True)
        if run.returncode not in (0, 1):
            raise SystemExit(f"the tests of {mutant.fault!r} did not run:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        return run.returncode == 1


if __name__ == "__main__":
    sys.exit(main())
