"""What stands in the way of a job, for programs."""

from __future__ import annotations

from typing import Any

from forge_jobs.redact import redact_text
from forge_jobs.storage.types.blocker import Blocker


def blocker_view(one: Blocker) -> dict[str, Any]:
    """A blocker for programs."""
    return {
        "code": str(one.code),
        "text": redact_text(one.text),
        "since": one.since,
        "until": one.until,
        "remedy": one.remedy,
    }
