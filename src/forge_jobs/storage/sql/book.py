"""The book of statements: SQL lives in `.sql` files, by name.

A file holds statements, each under a line `-- name: the_name`. What several of them have in common stands once, under
`-- fragment: its_name`, and comes in the place of a line `-- use: its_name`. The shared book is `queries/*.sql`; a
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

_HEAD = re.compile(r"^-- (name|fragment): (\w+)\n", re.MULTILINE)
_USE = re.compile(r"^-- use: (\w+)\n", re.MULTILINE)
SORTS: Final = {"name": "statements", "fragment": "fragments"}
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
    """The statements of one file.

    Raises:
        RuntimeError: two have one name, or a fragment is used that is not in the file.
    """
    parts = _HEAD.split(text)
    found: dict[str, dict[str, str]] = {"name": {}, "fragment": {}}
    for head, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if name in found[head]:
            raise RuntimeError(f"{source} holds two {SORTS[head]} named {name}")
        found[head][name] = body

    def fragment(use: re.Match[str]) -> str:
        if use[1] not in found["fragment"]:
            raise RuntimeError(f"{source} uses the fragment {use[1]}, which it does not hold")
        lines = found["fragment"][use[1]].strip("\n").split("\n")
        return "\n".join(line for line in lines if not line.startswith("--")) + "\n"

    return {name: _USE.sub(fragment, body).strip().rstrip(";") for name, body in found["name"].items()}
