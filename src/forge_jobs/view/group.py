"""Dead jobs that ended alike, for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from forge_jobs.fingerprint import fingerprint
from forge_jobs.redact import Secrets
from forge_jobs.storage.types.job import Death

LOOKED_AT: Final = 10_000
"""Groups are of so many of the newest dead jobs."""
IDS_GIVEN: Final = 1_000


def groups_view(deaths: Sequence[Death], secrets: Secrets) -> list[dict[str, Any]]:
    """Groups of these deaths, which are latest first; the most numerous group first."""
    found: dict[str, list[Death]] = {}
    for death in deaths:
        found.setdefault(fingerprint(death.error or death.reason or ""), []).append(death)
    items = [_group(mark, alike, secrets) for mark, alike in found.items()]
    return sorted(items, key=lambda group: (-group["count"], group["fingerprint"]))


def _group(mark: str, deaths: Sequence[Death], secrets: Secrets) -> dict[str, Any]:
    newest = deaths[0]
    return {
        "fingerprint": mark,
        "sample": secrets.error(newest.kind, newest.error) if newest.error else newest.reason or "",
        "count": len(deaths),
        "kinds": sorted({death.kind for death in deaths}),
        "queues": sorted({death.queue for death in deaths}),
        "first": deaths[-1].at,
        "last": newest.at,
        "ids": [death.id for death in deaths[:IDS_GIVEN]],
    }
