"""Which of the ready jobs a claim takes. Pure; asked by the claim, and by whoever explains why a job waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from forge_jobs.ids import JobId
from forge_jobs.storage.bucket import Bucket
from forge_jobs.storage.types.rate_limit import Gate

Head: TypeAlias = "tuple[int, int, JobId]"
"""Where a job stands in the claim order: priority, scheduled_at in microseconds, id."""


def affords(gate: Gate, buckets: Mapping[str, Bucket]) -> bool:
    """Whether its scope can pay for a job now."""
    bucket = buckets.get(gate.scope)
    return bucket is not None and bucket.available >= gate.cost


def holding(gates: Sequence[Gate], buckets: Mapping[str, Bucket]) -> tuple[Gate, ...]:
    """Of these kinds those whose jobs wait for tokens that others of these kinds could spend now: the first of them
    keeps the tokens from whatever stands behind it."""
    spending = {gate.scope for gate in gates if affords(gate, buckets)}
    return tuple(
        gate
        for gate in gates
        if gate.scope in spending and not affords(gate, buckets) and _will_pay(buckets[gate.scope], gate.cost)
    )


def mixed_scopes(gates: Iterable[Gate]) -> frozenset[str]:
    """The scopes that these kinds pay differently from. Only there may a job be paid for that stands behind one that
    cannot."""
    costs: dict[str, float] = {}
    return frozenset(gate.scope for gate in gates if costs.setdefault(gate.scope, gate.cost) != gate.cost)


def heads_needed(gate: Gate, buckets: Mapping[str, Bucket], limit: int) -> int:
    """How many first jobs of a kind to look at, to know which are paid for, and at which the scope ends."""
    return min(limit, int(buckets[gate.scope].available // gate.cost) + 1)


def first_payable(
    found: Iterable[tuple[Head, str]], gates: Mapping[str, Gate], buckets: Mapping[str, Bucket], limit: int
) -> list[tuple[Head, str]]:
    """Of heads with their kinds, the first `limit` in claim order that can be paid for.

    A job that has to wait for tokens keeps what there is from all behind it in claim order that pay from the same
    scope, whatever they cost: else cheap ones would spend for ever what a dear one waits for. One that its scope can
    never pay for is passed by. `gates` are the kinds that are paid for.
    """
    left = {scope: bucket.available for scope, bucket in buckets.items()}
    kept: set[str] = set()
    best: list[tuple[Head, str]] = []
    for head, kind in sorted(found):
        gate = gates.get(kind)
        if gate is not None:
            if gate.scope in kept:
                continue
            if left[gate.scope] < gate.cost:
                if _will_pay(buckets[gate.scope], gate.cost):
                    kept.add(gate.scope)
                continue
            left[gate.scope] -= gate.cost
        best.append((head, kind))
        if len(best) == limit:
            break
    return best


def _will_pay(bucket: Bucket, cost: float) -> bool:
    return bucket.refill_per_s > 0 and cost <= bucket.capacity
