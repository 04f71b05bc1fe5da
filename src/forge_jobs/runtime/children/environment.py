"""The environment of a child: a few fixed variables, those that are asked for, those that are given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

BASE: Final = ("PATH", "HOME", "LANG", "TZ")
DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def environment(*, inherit: Iterable[str] = (), given: Mapping[str, str] | None = None) -> dict[str, str]:
    """PATH, HOME, LANG, TZ and the variables named by `inherit` as this process has them, then `given` on top.

    Everything else stays here: a worker's environment holds passwords that are no business of its children.
    """
    found = {name: os.environ[name] for name in (*BASE, *inherit) if name in os.environ}
    return {"PATH": DEFAULT_PATH, **found, **(given or {})}
