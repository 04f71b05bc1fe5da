"""Where code is at this moment: the frames of a coroutine that waits, or of a thread that runs. Never its values."""

from __future__ import annotations

import linecache
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Final

FRAMES: Final = 40
"""So many are shown, the innermost."""
_OURS: Final = str(Path(__file__).parents[1])
_NEXT: Final = ("cr_await", "gi_yieldfrom", "ag_await")
_FRAME: Final = ("cr_frame", "gi_frame", "ag_frame")


def of_coroutine(waiting: Any) -> list[str]:
    """The frames of a coroutine and of what it waits for, outermost first; not those of this program around a handler.
    A task that it waits for is not looked into."""
    found: list[FrameType] = []
    while waiting is not None:
        frame = next((one for name in _FRAME if (one := getattr(waiting, name, None)) is not None), None)
        if frame is not None:
            found.append(frame)
        waiting = next((getattr(waiting, name) for name in _NEXT if hasattr(waiting, name)), None)
    return _shown(found)


def of_thread(ident: int | None) -> list[str]:
    """The same of a thread; nothing if it has ended."""
    found: list[FrameType] = []
    frame = sys._current_frames().get(ident) if ident is not None else None
    while frame is not None:
        found.insert(0, frame)
        frame = frame.f_back
    return _shown(found)


def _shown(frames: list[FrameType]) -> list[str]:
    first = next((n for n, frame in enumerate(frames) if not _is_around(frame.f_code.co_filename)), 0)
    return [_line(frame) for frame in frames[first:][-FRAMES:]]


def _is_around(file: str) -> bool:
    """Whether the code is what calls handlers."""
    return file.startswith((_OURS, threading.__file__, "<string>"))


def _line(frame: FrameType) -> str:
    file, number = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, number, frame.f_globals).strip()
    return f"{file}:{number} in {frame.f_code.co_qualname}" + (f": {source}" if source else "")
