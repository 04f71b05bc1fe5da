"""How long a retry waits: pure, in seconds.

`min(base * 2^n, cap)`, saturating, with a uniform jitter of a share of it. The first retry waits the base.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final

from forge_jobs.limits import BACKOFF_S, JITTER
from forge_jobs.storage.types.queue import BackoffPolicy

MAX_DOUBLINGS: Final = 30
THROTTLE_DEFAULT_S: Final = 60.0
THROTTLE_JITTER: Final = 0.1


def curve(n: int, policy: BackoffPolicy) -> float:
    """Seconds of the n-th step of the policy's curve, without jitter; n below 0 counts as 0."""
    base = _clamp(policy.base_s, BACKOFF_S)
    cap = _clamp(policy.cap_s, BACKOFF_S)
    return float(min(base * 2 ** min(max(n, 0), MAX_DOUBLINGS), cap))


def retry_delay(attempt: int, policy: BackoffPolicy) -> timedelta:
    """How long after its `attempt`-th failed run (1 is the first) a job waits; nothing if the policy is off."""
    if not policy.enabled:
        return timedelta(0)
    return timedelta(seconds=jittered(curve(attempt - 1, policy), policy.jitter))


def crash_delay(crashes: int, policy: BackoffPolicy) -> timedelta:
    """How long after its `crashes`-th crash a job waits: the first is due at once."""
    if crashes <= 1 or not policy.enabled:
        return timedelta(0)
    return timedelta(seconds=jittered(curve(crashes - 2, policy), policy.jitter))


def throttle_delay(hint_s: float | None, throttle_attempts: int, policy: BackoffPolicy) -> timedelta:
    """How long a throttled job waits: the upstream's hint or the queue's curve, plus up to 10 %, never less."""
    if hint_s is None:
        hint_s = curve(throttle_attempts, policy) if policy.enabled else THROTTLE_DEFAULT_S
    return timedelta(seconds=hint_s * (1 + random.uniform(0, THROTTLE_JITTER)))  # noqa: S311


def jittered(seconds: float, jitter: float) -> float:
    """`seconds` give or take a uniform share of up to `jitter`."""
    share = _clamp(jitter, JITTER)
    return seconds * (1 + random.uniform(-share, share))  # noqa: S311


def _clamp(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
