"""Leases: which process runs a background loop that the cluster needs only once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease that was held when this was read.

    `token` grows with every change of holder, so `(name, token)` names one holder's time without a gap.
    """

    name: str
    holder: str
    token: int
    expires_at: datetime
