"""Token buckets: what a rate limit grants, and when. Pure, as the lifecycle is.

A bucket holds up to `capacity` tokens and gains `refill_per_s`; what is granted is taken out. So in every window of t
seconds at most capacity + t × refill_per_s tokens are granted (the classic token bucket, as in RFC 2698's policer).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from forge_jobs import limits

SECOND_US: Final = 1_000_000
LONGEST_PARK_US: Final = 300 * SECOND_US
"""Jobs that were put off look again after this at the latest: the limit may have been raised meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket at one moment. It gives nothing for `blocked_us` more; `parked_us` is up to when, from now, its refill
    is promised to jobs that were put off."""

    capacity: float
    refill_per_s: float
    tokens: float
    blocked_us: int = 0
    parked_us: int = 0

    @property
    def available(self) -> float:
        return 0.0 if self.blocked_us > 0 else self.tokens


def aged(bucket: Bucket, elapsed_us: int) -> Bucket:
    """The bucket `elapsed_us` later; time never runs backwards here."""
    if elapsed_us <= 0:
        return bucket
    return replace(
        bucket,
        tokens=min(bucket.capacity, bucket.tokens + elapsed_us / SECOND_US * bucket.refill_per_s),
        blocked_us=max(bucket.blocked_us - elapsed_us, 0),
        parked_us=max(bucket.parked_us - elapsed_us, 0),
    )


def taken(bucket: Bucket, cost: float) -> Bucket | None:
    """The bucket without `cost` tokens; None if it does not hold them, or gives none."""
    return replace(bucket, tokens=bucket.tokens - cost) if bucket.available >= cost else None


def wait_us(bucket: Bucket, cost: float) -> int:
    """How long until `cost` tokens can be had if nobody else takes any; at least 1."""
    lacking = cost - bucket.tokens
    if lacking <= 0:
        return max(bucket.blocked_us, 1)
    if bucket.refill_per_s * limits.RATE_RETRY_S[1] < lacking:
        return max(bucket.blocked_us, round(limits.RATE_RETRY_S[1] * SECOND_US))  # as good as never, or never
    # One more, so that rounding cannot leave a hair's breadth.
    return max(bucket.blocked_us, math.ceil(lacking / bucket.refill_per_s * SECOND_US) + 1)


def exact_wait_us(bucket: Bucket, cost: float) -> int | None:
    """How long until `cost` tokens can be had if nobody else takes any, however long that is; None: never."""
    lacking = cost - bucket.tokens
    if lacking <= 0:
        return bucket.blocked_us
    if bucket.refill_per_s <= 0 or cost > bucket.capacity:
        return None
    return max(bucket.blocked_us, math.ceil(lacking / bucket.refill_per_s * SECOND_US) + 1)


def drained(bucket: Bucket, blocked_us: int = 0) -> Bucket:
    """The bucket empty, and giving none for at least `blocked_us`: the upstream said so."""
    return replace(bucket, tokens=0.0, blocked_us=max(bucket.blocked_us, blocked_us))


def parked(bucket: Bucket, cost: float, spread: float) -> tuple[Bucket, int]:
    """Put a job off to when its turn comes; the bucket that has promised it the refill until then, and how long
    that is.

    Each is promised its own part of the refill, so that a thousand jobs of one scope do not all come back for one
    token. `spread`, from 0 to 1, places those beyond the longest wait.
    """
    wait = wait_us(bucket, cost)
    if bucket.refill_per_s > 0:
        wait = max(wait, min(bucket.parked_us + math.ceil(cost / bucket.refill_per_s * SECOND_US), 2 * LONGEST_PARK_US))
    if wait > LONGEST_PARK_US:
        return bucket, round(LONGEST_PARK_US * (0.5 + spread / 2))
    return replace(bucket, parked_us=wait), wait


def retuned(bucket: Bucket, capacity: float, refill_per_s: float) -> Bucket:
    """The bucket with other numbers: tokens beyond the new capacity are gone, none are given."""
    return replace(
        bucket, capacity=capacity, refill_per_s=refill_per_s, tokens=min(bucket.tokens, capacity), parked_us=0
    )
