"""What the demo works on: source files of the Python standard library, and what the upstream does to each.

The choice depends on the number of files and a seed, not on the run, so that the upstream, the conductor and the
final check agree on it without talking to each other.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

SIZE_BYTES: Final = (200, 40_000)
LEFT_OUT: Final = frozenset(
    {"__pycache__", "dist-packages", "idlelib", "lib2to3", "site-packages", "test", "tests", "turtledemo"}
)
"""Folders that are not the library itself, or that hold broken sources on purpose."""

GONE_EVERY: Final = (25, 11)
FLAKY_EVERY: Final = (12, 5)
SLOW_EVERY: Final = (6, 4)
"""Every n-th file of the shuffled list, counted from the m-th."""


class Fate(StrEnum):
    """How the upstream answers for a file: it serves it, 404 for ever, 500 the first time, or late."""

    PLAIN = "plain"
    GONE = "gone"
    FLAKY = "flaky"
    SLOW = "slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of the corpus; `path` is relative to the library and uses slashes."""

    path: str
    location: Path
    fate: Fate


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What a job finds in a file; `imports` are the top-level names of the modules it imports, sorted."""

    lines: int
    functions: int
    imports: tuple[str, ...]


def standard_library() -> Path:
    """Where the sources of the running Python are."""
    return Path(sysconfig.get_path("stdlib"))


def choose(items: int, seed: int, root: Path | None = None) -> tuple[SourceFile, ...]:
    """Up to `items` files under `root` (the standard library), in an order and with fates drawn from `seed`."""
    root = root or standard_library()
    paths = (path.relative_to(root).as_posix() for path in _sources(root))
    shuffled = sorted(paths, key=lambda path: hashlib.sha256(f"{seed}:{path}".encode()).digest())[:items]
    return tuple(SourceFile(path=path, location=root / path, fate=_fate(place)) for place, path in enumerate(shuffled))


def measure(source: bytes) -> Measures:
    """Count what is in a source file. One that does not parse has lines only."""
    functions, modules = 0, set[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an odd escape in a file of the library is not our business
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except (SyntaxError, ValueError):
            nodes = []
    for node in nodes:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.Import(names=names):
                modules |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                modules.add(module.partition(".")[0])
            case _:
                pass
    return Measures(lines=len(source.splitlines()), functions=functions, imports=tuple(sorted(modules)))


def _sources(root: Path) -> Iterator[Path]:
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in LEFT_OUT]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            if path.is_file() and SIZE_BYTES[0] <= path.stat().st_size <= SIZE_BYTES[1]:
                yield path


def _fate(place: int) -> Fate:
    for fate, (every, first) in ((Fate.GONE, GONE_EVERY), (Fate.FLAKY, FLAKY_EVERY), (Fate.SLOW, SLOW_EVERY)):
        if place % every == first:
            return fate
    return Fate.PLAIN
