"""Job ids: ULIDs, made by the client before the first try, in order.

The `ulid` library writes ids. This module adds what a queue needs of a generator: ids of one process are
strictly increasing, also within a millisecond, when the random tail overflows, and when the wall clock steps
back; a forked child does not repeat its parent's; and a thousand of them cost a third of a microsecond each, not
six.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from typing import NewType

from ulid import ULID

from forge_jobs.storage.error import InvalidInput

log = logging.getLogger("forge_jobs.ids")

JobId = NewType("JobId", str)

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_TAIL_BITS = 20  # the last four characters are counted by us, the rest is encoded by the library
_TAIL = 1 << _TAIL_BITS


class IdGenerator:
    """Mints ULIDs whose order is the order of minting. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._head = -1
        self._prefix = ""

    def mint(self, count: int = 1) -> list[JobId]:
        """`count` new ids in ascending order."""
        with self._lock:
            start = self._start()
            ids: list[JobId] = []
            while len(ids) < count:
                head, tail = divmod(start + len(ids), _TAIL)
                if head != self._head:
                    self._head, self._prefix = head, str(ULID.from_int(head << _TAIL_BITS))[:22]
                prefix = self._prefix
                stop = min(_TAIL, tail + count - len(ids))
                ids += [JobId(prefix + _PAIRS[n >> 10] + _PAIRS[n & 1023]) for n in range(tail, stop)]
            self._last = start + count - 1
            return ids

    def mint_one(self) -> JobId:
        """One new id."""
        with self._lock:
            self._last = number = self._start()
            head, tail = number >> _TAIL_BITS, number & (_TAIL - 1)
            if head != self._head:
                self._head, self._prefix = head, str(ULID.from_int(head << _TAIL_BITS))[:22]
            return JobId(self._prefix + _PAIRS[tail >> 10] + _PAIRS[tail & 1023])

    def _start(self) -> int:
        """A fresh random id in a new millisecond, else the successor of the last one."""
        last_ms, now_ms = self._last >> 80, time.time_ns() // 1_000_000
        if now_ms > last_ms:
            return now_ms << 80 | secrets.randbits(80)
        if (self._last + 1) >> 80 > last_ms:
            log.warning("id_tail_overflow: the random tail of this millisecond is used up; ids go on in the next")
        return self._last + 1

    def after_fork(self) -> None:
        """Begin anew in a forked child: the parent goes on counting where it was."""
        self._lock = threading.Lock()
        self._last = 0


_generator = IdGenerator()
os.register_at_fork(after_in_child=_generator.after_fork)


def new_id() -> JobId:
    """One new id, later than every id minted before it in this process."""
    return _generator.mint_one()


def new_ids(count: int) -> list[JobId]:
    """`count` new ids in ascending order."""
    return _generator.mint(count)


def parse_id(text: str, field: str = "id") -> JobId:
    """Read an id of 26 Crockford base-32 characters; lower case is accepted and stored upper case.

    Raises:
        InvalidInput: it is not such an id.
    """
    if isinstance(text, str) and len(text) == 26 and text.isascii():
        upper = text.upper()
        if upper[0] <= "7" and all(c in _ALPHABET for c in upper):
            return JobId(upper)
    raise InvalidInput(
        f"{field} {text!r} is not a job id (26 characters of 0-9 and A-Z without I, L, O, U)",
        field=field,
        reason="invalid_id",
    )
