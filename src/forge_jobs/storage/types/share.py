"""Shares: how a queue's total of workers is split over the processes that serve it, and what they have open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One process's part of one queue.

    `share` is what the rebalancer gives it, null while it gives nothing. `open` is how many slots it has open, or
    is about to open: never fewer than it really has.
    """

    queue: str
    host_id: str
    share: int | None
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A share to write; null takes it away."""

    queue: str
    host_id: str
    share: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a process needs to know to open slots of one queue, read in one snapshot.

    `total` is the queue's, null for no total. `share` and `open` are the process's own, see `Share`. `elsewhere` is
    what counts against the total besides: slots open in other live processes, and running jobs whose process fell
    silent. `live`: the process's own heartbeat is young enough for others to count its slots.
    """

    total: int | None
    share: int | None
    open: int
    elsewhere: int
    live: bool

    def may_open(self, *, staying: int, closing: int, wanted: int) -> int:
        """How many slots may stay open, of a process that has `staying`, would like `wanted`, and besides has
        `closing` that are closed but for the job in them.

        It keeps what it has, as far as it wants it and the store still counts it: slots of a process that fell
        silent are taken over by others, and are no longer its own when it comes back. Beyond that it gets what
        nobody has open, and nothing while the others could not count it.
        """
        kept = min(staying, max(self.open - closing, 0))
        if wanted <= kept:
            return wanted
        if not self.live:
            return kept
        if self.total is None:
            return wanted
        return min(wanted, max(kept, self.total - self.elsewhere - closing))
