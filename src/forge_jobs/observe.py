"""Telling what happens: log lines with a stable event name and fields.

The line reads `event key=value …`; a structured formatter finds the same in the record's `event` and `fields`.
No payload is ever among the fields.
"""

from __future__ import annotations

import logging
from typing import Any

from forge_jobs.text import printable


def tell(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
    """Log one event. Fields that are None are left out; text is shown with control characters escaped."""
    if logger.isEnabledFor(level):
        given = {key: value for key, value in fields.items() if value is not None}
        text = "".join(f" {key}={_shown(value)}" for key, value in given.items())
        logger.log(level, "%s%s", event, text, extra={"event": event, "fields": given})


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    text = printable(str(value))
    return f'"{text}"' if " " in text else text
