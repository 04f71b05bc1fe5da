"""Rate limits for programs."""

from __future__ import annotations

import dataclasses
from typing import Any

from forge_jobs.storage.types.rate_limit import RateLimit


def rate_limit_view(limit: RateLimit) -> dict[str, Any]:
    """A rate limit for programs."""
    return dataclasses.asdict(limit)
