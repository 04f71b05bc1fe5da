"""Work that no live worker takes: queues nobody serves, and kinds nobody has a handler for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.process import ProcessRow
from forge_jobs.storage.types.rate_limit import RateLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Unserved:
    """Waiting jobs that stay where they are: of a whole queue (`kind` null), or of one kind of it."""

    queue: str
    kind: str | None
    jobs: int


async def find_unserved(
    storage: Storage, processes: Sequence[ProcessRow], waiting: Mapping[str, Mapping[str, int]] | None = None
) -> list[Unserved]:
    """What the live ones of `processes` leave undone of `waiting`, the jobs by queue and kind: those of this moment
    unless given. Paused queues are left out: that is somebody's wish."""
    live = [row.info for row in processes if row.live]
    if waiting is None:
        waiting = await storage.jobs.waiting_kinds()
    found: list[Unserved] = []
    for settings in await storage.queues.list():
        queue, kinds = settings.name, waiting.get(settings.name, {})
        if settings.paused or not (kinds or settings.max_workers):
            continue
        serving = [info for info in live if info.slots.get(queue, 0) > 0]
        if not serving:
            found.append(Unserved(queue=queue, kind=None, jobs=sum(kinds.values())))
            continue
        known = {kind for info in serving for kind in info.kinds}
        found += [
            Unserved(queue=queue, kind=kind, jobs=count) for kind, count in sorted(kinds.items()) if kind not in known
        ]
    return found


def unknown_scopes(wanted: Collection[str], limits: Sequence[RateLimit]) -> set[str]:
    """Those scopes that no limit is for: what they limit waits for ever."""
    known = {limit.scope for limit in limits}
    patterns = tuple(f"{limit.scope}:" for limit in limits if limit.per_key)
    return {scope for scope in wanted if scope not in known and not scope.startswith(patterns)}
