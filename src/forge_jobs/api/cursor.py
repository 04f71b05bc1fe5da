"""Cursors of lists that are read by position or by instant."""

from __future__ import annotations

import base64
from typing import Final

from forge_jobs.api.problem import invalid

LARGEST: Final = 253_402_300_799_999_999
"""The last microsecond that an instant can have."""


def write_position(position: int) -> str:
    return base64.urlsafe_b64encode(f"p1:{position}".encode()).decode().rstrip("=")


def read_position(cursor: str | None) -> int:
    """Where to go on; 0 without a cursor.

    Raises:
        Problem: it is not one of ours.
    """
    if cursor is None:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        version, _, position = text.partition(":")
        if version == "p1" and position.isdigit() and len(position) < 19 and int(position) <= LARGEST:
            return int(position)
    except ValueError:
        pass
    raise invalid(f"cursor {ascii(cursor)[:80]} is not one of ours", field="cursor", reason="invalid_cursor")
