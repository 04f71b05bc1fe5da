"""The folder that a run of the demo writes to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Workspace:
    """A folder, and whether it outlives the demo."""

    folder: Path
    stays: bool


@contextmanager
def workspace(keep: Path | None) -> Iterator[Workspace]:
    """The folder `keep`, which stays, or a temporary one, which goes unless the block says that it stays."""
    if keep is not None:
        yield Workspace(keep.resolve(), stays=True)
        return
    place = Workspace(Path(tempfile.mkdtemp(prefix="forge-jobs-demo-")), stays=False)
    try:
        yield place
    finally:
        if not place.stays:
            shutil.rmtree(place.folder, ignore_errors=True)
