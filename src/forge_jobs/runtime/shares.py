"""How a queue's total of workers is split over the processes that serve it."""

from __future__ import annotations

from collections.abc import Sequence


def fair_share(total: int, hosts: Sequence[str], host: str, offset: int = 0) -> int:
    """The part of `total` that `host` gets: equal parts, the remainder one each in host order from `offset` on.

    `offset` depends on the queue, so that the remainders of many small queues do not all land on one process.
    Over all hosts the parts add up to `total`.
    """
    ordered = sorted(hosts)
    if host not in ordered:
        return 0
    base, remainder = divmod(total, len(ordered))
    place = (ordered.index(host) - offset) % len(ordered)
    return base + (1 if place < remainder else 0)
