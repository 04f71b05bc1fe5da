"""Which of the ready jobs a claim takes. Pure; asked by the claim, and by whoever explains why a job waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from forge_jobs.ids import JobId
from forge_jobs.storage.types.rate_limit import Gate

Head: TypeAlias = "tuple[int, int, JobId]"
"""Where a job stands in the claim order: priority, scheduled_at in microseconds, id."""


def first_payable(
    found: Iterable[tuple[Head, str]], gates: Mapping[str, Gate], tokens: Mapping[str, float], limit: int
) -> list[Head]:
    """Of heads with their kinds, the first `limit` in claim order that can be paid for; those that cannot are passed
    by. `gates` are the kinds that are paid for, `tokens` what their scopes hold."""
    left = dict(tokens)
    best: list[Head] = []
    for head, kind in sorted(found):
        gate = gates.get(kind)
        if gate is not None:
            if left[gate.scope] < gate.cost:
                continue
            left[gate.scope] -= gate.cost
        best.append(head)
        if len(best) == limit:
            break
    return best
