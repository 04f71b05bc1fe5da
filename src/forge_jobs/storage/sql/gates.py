"""Paying for jobs when they are claimed: kinds with a rate limit are taken only as far as their bucket goes.

The buckets are locked before the claim and written after it, in its transaction. A kind whose bucket is empty is left
out of the claim altogether, so its jobs are not even looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from forge_jobs import limits
from forge_jobs.storage import bucket as buckets
from forge_jobs.storage.bucket import Bucket
from forge_jobs.storage.claim_order import affords, holding
from forge_jobs.storage.protocol import ClaimRequest
from forge_jobs.storage.sql.driver import Tx
from forge_jobs.storage.sql.rate_limits import lock_buckets, write_buckets
from forge_jobs.storage.types.job import JobRecord
from forge_jobs.storage.types.rate_limit import Gate

UNKNOWN_US = round(limits.RATE_RETRY_S[1] * buckets.SECOND_US)


class Gates:
    """The buckets that the claims of one transaction pay from."""

    def __init__(self, tx: Tx, requests: Iterable[ClaimRequest]) -> None:
        self._tx = tx
        self._found = lock_buckets(tx, {gate.scope for request in requests for gate in request.gates})
        self._now = dict(self._found)

    def passing(self, request: ClaimRequest) -> ClaimRequest:
        """The request without the kinds that cannot be paid for."""
        shut = {gate.kind for gate in request.gates if not affords(gate, self._now)}
        if not shut:
            return request
        return replace(
            request,
            kinds=tuple(kind for kind in request.kinds if kind not in shut),
            gates=tuple(gate for gate in request.gates if gate.kind not in shut),
        )

    def holding(self, request: ClaimRequest) -> tuple[Gate, ...]:
        """The kinds that `passing` leaves out, and whose first job keeps tokens from others nevertheless."""
        return () if request.alone else holding(request.gates, self._now)

    @property
    def buckets(self) -> Mapping[str, Bucket]:
        """What the claims before this one left."""
        return self._now

    def pay(self, request: ClaimRequest, jobs: Sequence[JobRecord]) -> None:
        """Take the tokens of claimed jobs out of their buckets."""
        gates = {gate.kind: gate for gate in request.gates}
        for job in jobs:
            gate = gates.get(job.kind)
            if gate is not None:
                bucket = self._now[gate.scope]
                self._now[gate.scope] = replace(bucket, tokens=max(bucket.tokens - gate.cost, 0.0))

    def limited(self, request: ClaimRequest) -> tuple[tuple[str, int], ...]:
        """The scopes of the request that can pay for no job of some kind now, with the time until they can."""
        waits: dict[str, int] = {}
        for gate in request.gates:
            if not affords(gate, self._now):
                bucket = self._now.get(gate.scope)
                wait = UNKNOWN_US if bucket is None else buckets.wait_us(bucket, gate.cost)
                waits[gate.scope] = min(wait, waits.get(gate.scope, wait))
        return tuple(waits.items())

    def close(self) -> None:
        """Store what was paid."""
        changed = {scope: bucket for scope, bucket in self._now.items() if bucket is not self._found[scope]}
        write_buckets(self._tx, changed)
