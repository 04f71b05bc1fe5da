"""Which errors are alike: those that differ in numbers, ids, addresses and quoted text at most."""

from __future__ import annotations

import hashlib
import re
from typing import Final

LENGTH: Final = 1_000
"""So much of a text counts."""
_VARIABLE: Final = re.compile(
    r"""'[^'\n]{0,200}'|"[^"\n]{0,200}"|\b[0-9A-HJKMNP-TV-Z]{26}\b"""
    r"""|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b|\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{16,64}\b|\d+"""
)


def fingerprint(error: str) -> str:
    """The same twelve characters for errors that are alike."""
    shape = _VARIABLE.sub("#", error[:LENGTH])
    return hashlib.sha256(shape.encode("utf-8", "replace")).hexdigest()[:12]
