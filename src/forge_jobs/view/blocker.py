"""What stands in the way of a job, for programs."""

from __future__ import annotations

from typing import Any

from forge_jobs.redact import Secrets
from forge_jobs.storage.types.blocker import Blocker


def blocker_view(one: Blocker, secrets: Secrets, kind: str) -> dict[str, Any]:
    """A blocker for programs. `kind` is that of the job it is about, empty if it is about none."""
    return {
        "code": str(one.code),
        "text": secrets.text(kind, one.text),
        "since": one.since,
        "until": one.until,
        "remedy": one.remedy,
    }
