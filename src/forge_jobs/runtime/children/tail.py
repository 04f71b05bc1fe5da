"""The end of a stream, however long it was."""

from __future__ import annotations

from typing import Final

TAIL_BYTES: Final = 64 * 1024


class Tail:
    """Keeps the last 64 KiB of what it is fed, and at most twice that in memory."""

    def __init__(self, limit_bytes: int = TAIL_BYTES) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self.total_bytes = 0

    def feed(self, data: bytes) -> None:
        self.total_bytes += len(data)
        self._kept += data[-self._limit :]
        if len(self._kept) > 2 * self._limit:
            del self._kept[: -self._limit]

    def text(self, limit_bytes: int) -> str:
        """The last `limit_bytes` as text without outer blanks, cut at a character; "…" in front if it was cut."""
        data = bytes(self._kept[-self._limit :]).rstrip()
        cut = len(data) > limit_bytes or self.total_bytes > len(self._kept)
        if len(data) > limit_bytes:
            data = data[-limit_bytes:]
            first = next((at for at, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), 0)  # no continuation byte
            data = data[first:]
        text = data.decode(errors="replace")
        return f"…{text}" if cut and text else text.lstrip()
