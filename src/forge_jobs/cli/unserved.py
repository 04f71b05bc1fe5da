"""Work that no live worker takes: queues nobody serves, and kinds nobody has a handler for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.storage.types.process import ProcessRow

WAITING: Final = ("pending", "failed")
PAGE: Final = 1_000
PAGES: Final = 10
"""How far the search for the names of unserved kinds goes back; their number is exact in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unserved:
    """Waiting jobs that stay where they are: of a whole queue (`kind` null), or of one kind of it."""

    queue: str
    kind: str | None
    jobs: int


async def find_unserved(storage: Storage, processes: Sequence[ProcessRow]) -> list[Unserved]:
    """What the live ones of `processes` leave undone. Paused queues are left out: that is somebody's wish."""
    live = [row.info for row in processes if row.live]
    paused = {queue.name for queue in await storage.queues.list() if queue.paused}
    totals = {queue.name: queue.max_workers for queue in await storage.queues.list()}
    found: list[Unserved] = []
    for queue, counts in (await storage.queues.counts()).items():
        if queue in paused or not (counts.ready or counts.scheduled or counts.failed):
            continue
        serving = [info for info in live if info.slots.get(queue, 0) > 0]
        if not serving:
            if counts.ready or totals.get(queue):
                found.append(Unserved(queue=queue, kind=None, jobs=counts.ready))
            continue
        kinds = sorted({kind for info in serving for kind in info.kinds})
        found.extend(await _unserved_kinds(storage, queue, kinds))
    return found


async def _unserved_kinds(storage: Storage, queue: str, served: Sequence[str]) -> list[Unserved]:
    all_kinds = JobFilter(queues=(queue,), statuses=WAITING)
    waiting = sum((await storage.jobs.count(all_kinds)).values())
    of_served = JobFilter(queues=(queue,), statuses=WAITING, kinds=tuple(served))
    if waiting <= sum((await storage.jobs.count(of_served)).values()):
        return []
    names: set[str] = set()
    cursor = None
    for _ in range(PAGES):
        page = await storage.jobs.list_jobs(all_kinds, limit=PAGE, cursor=cursor)
        names.update(job.kind for job in page.items if job.kind not in served)
        cursor = page.next_cursor
        if cursor is None:
            break
    found = []
    for name in sorted(names):
        counts = await storage.jobs.count(JobFilter(queues=(queue,), statuses=WAITING, kinds=(name,)))
        found.append(Unserved(queue=queue, kind=name, jobs=sum(counts.values())))
    return found
