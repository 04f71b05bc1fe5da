"""What stands in a write-ahead log file: read from outside, without SQLite."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

HEADER: Final = struct.Struct(">8I")
FRAME: Final = struct.Struct(">6I")


def commits(database: Path) -> int:
    """How many commits the log of a database holds: frames that tell the size of the file are the last of one."""
    raw = database.with_name(database.name + "-wal").read_bytes()
    if len(raw) < HEADER.size:
        return 0
    _, _, page_size, _, *salts = HEADER.unpack_from(raw)[:6]
    found = 0
    for start in range(HEADER.size, len(raw) - FRAME.size - page_size + 1, FRAME.size + page_size):
        _, size_after, *frame_salts = FRAME.unpack_from(raw, start)[:4]
        if frame_salts != salts:  # left over from before the log was begun anew
            break
        found += size_after > 0
    return found
