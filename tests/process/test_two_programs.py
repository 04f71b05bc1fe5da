"""Two programs on one database, each with its queue and its kinds, as a team deploys them; on both backends."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from forge_jobs import EnqueueRequest, open_storage
from forge_jobs.testing import Cluster, all_enqueued, until

from .stage import Stage

PROGRAM = """
import pathlib
from forge_jobs import EnqueueRequest, HandlerRegistry

handlers = HandlerRegistry()

@handlers.handler("note")
async def note(ctx, payload):
    with pathlib.Path(__file__).with_suffix(".seen").open("a") as seen:
        seen.write(f"{{ctx.queue}}\\n")

@handlers.handler("{own}")
async def own(ctx, payload):
    await ctx.enqueue(EnqueueRequest("note", queue="{other}"))
"""
JOBS = 20


def seen_by(program: Path) -> Counter[str]:
    """The queues of the jobs that a program's handler `note` has run."""
    path = program.with_suffix(".seen")
    return Counter(path.read_text().split() if path.exists() else ())


@pytest.mark.parametrize("place", ["on_a_file", "on_postgresql"])
async def test_each_program_runs_its_queue_and_only_kinds_it_knows(place: str, request: pytest.FixtureRequest) -> None:
    stage: Stage = request.getfixturevalue(place)
    shop, billing = stage.folder / "shop.py", stage.folder / "billing.py"
    shop.write_text(PROGRAM.format(own="order", other="billing"))
    billing.write_text(PROGRAM.format(own="invoice", other="shop"))
    async with open_storage(stage.url) as storage:
        await storage.jobs.enqueue_bulk(
            [EnqueueRequest(kind, queue=queue) for kind, queue in [("order", "shop"), ("invoice", "billing")] * JOBS]
        )
        # A kind that the program of this queue does not know: it waits, and burns no attempt.
        strayed = await storage.jobs.enqueue(EnqueueRequest("invoice", queue="shop"))

        async def all_else_is_done() -> bool:
            jobs = await all_enqueued(storage)
            return len(jobs) == 4 * JOBS + 1 and all(job.status == "done" for job in jobs if job.id != strayed.id)

        with ExitStack() as programs:
            for program in (shop, billing):
                programs.enter_context(
                    Cluster(
                        stage.url,
                        f"{program.stem}:handlers",
                        folder=_logs(stage, program.stem),
                        workers=1,
                        queues=[program.stem],
                        directory=stage.folder,
                    )
                )
            await until(all_else_is_done, within_s=30)
            left = await storage.jobs.get(strayed.id)
        assert left is not None
        assert (left.row.status, left.row.attempts) == ("pending", 0)
    assert seen_by(shop) == {"shop": JOBS}
    assert seen_by(billing) == {"billing": JOBS}


def _logs(stage: Stage, name: str) -> Path:
    folder = stage.folder / f"{name}-logs"
    folder.mkdir()
    return folder
