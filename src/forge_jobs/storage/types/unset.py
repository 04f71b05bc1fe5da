"""How a change says that something is not given."""

from __future__ import annotations

from typing import Any, Final

UNSET: Final[Any] = object()
"""Marks a setting that a change leaves as it is, where `None` means "no limit"."""
