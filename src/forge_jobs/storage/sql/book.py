"""The book of statements: SQL lives in `.sql` files, by name.

A file holds statements, each under a line `-- name: the_name`. The shared book is `queries/*.sql`; a
backend's overlay replaces whole statements or adds its own, and says which feature forced it. Code asks
for a statement once, at import, with `statement(name)`, so a backend that lacks one fails when it is opened
and not at night.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_required: dict[str, set[str]] = {}
CORE: Final = "core"


def statement(name: str, part: str = CORE) -> str:
    """Declare that the code uses this statement; gives back its name. A `part` other than the core is for backends
    that use the code which declares it."""
    _required.setdefault(part, set()).add(name)
    return name


def load_book(overlay: Traversable, *parts: str) -> Mapping[str, str]:
    """The shared statements with a backend's overlay on top.

    Raises:
        RuntimeError: a statement declared for the core or one of `parts` is in neither, or one stands in a file twice.
    """
    book: dict[str, str] = {}
    shared = files("forge_jobs.storage.sql").joinpath("queries")
    for page in sorted(shared.iterdir(), key=lambda entry: entry.name):
        if page.name.endswith(".sql"):
            book.update(parse(page.read_text(), page.name))
    book.update(parse(overlay.read_text(), overlay.name))
    required = set().union(*(_required.get(part, ()) for part in (CORE, *parts)))
    missing = sorted(required - book.keys())
    if missing:
        raise RuntimeError(f"statements missing in {overlay.name}: {', '.join(missing)}")
    return book


def parse(text: str, source: str) -> dict[str, str]:
    """The statements of one file."""
    parts = _NAME.split(text)
    found: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in found:
            raise RuntimeError(f"{source} holds two statements named {name}")
        found[name] = body.strip().rstrip(";")
    return found
