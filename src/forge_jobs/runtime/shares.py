"""How the totals of queues are split over the processes that serve them. Pure: the rebalancer writes the answer down,
and a process that it has not seen yet works out its own part with the same functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forge_jobs import limits
from forge_jobs.storage.types.process import ProcessRow, ProcessState
from forge_jobs.storage.types.queue import QueueSettings
from forge_jobs.storage.types.share import Assignment, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One queue's total: the part of each process by host id, and what none of them can take."""

    shares: Mapping[str, int]
    unassigned: int


def plan_shares(queues: Sequence[QueueSettings], processes: Sequence[ProcessRow]) -> dict[str, Split]:
    """The split of every queue that has a total, over the live processes that declare it and are not draining.

    Paused queues are split like others.
    """
    totals = {queue.name: queue.max_workers for queue in queues if queue.max_workers is not None}
    serving = [row.info for row in processes if row.live and row.info.state is not ProcessState.DRAINING]
    caps = {
        queue: {
            info.host_id: info.offered.get(queue, limits.SLOTS_PER_QUEUE_OF_A_TOTAL)
            for info in serving
            if queue in info.queues
        }
        for queue in totals
    }
    return split_totals(totals, caps)


def split_totals(totals: Mapping[str, int], caps: Mapping[str, Mapping[str, int]]) -> dict[str, Split]:
    """Split each queue's total over the processes in `caps`, which says the most that each of them can take.

    Where a total does not divide evenly, some processes get one more. Who, begins after those of the queues before
    by name, so the remainders of many small queues are spread: ten queues of one worker put two on each of five.
    """
    offset, found = 0, {}
    for queue in sorted(totals):
        total, takers = totals[queue], caps.get(queue, {})
        found[queue] = split(total, takers, offset)
        offset += total % len(takers) if takers else 0
    return found


def split(total: int, caps: Mapping[str, int], offset: int = 0) -> Split:
    """Equal parts; those of the first hosts from `offset` on, in host id order, one more where there is a remainder.

    A process that can take less than its part leaves the rest to the others. So any two that could take more differ
    by one at most, and shares and unassigned add up to the total.
    """
    shares: dict[str, int] = {}
    left, takers = total, sorted(caps)
    while takers:
        base, remainder = divmod(left, len(takers))
        parts = {host: base + ((place - offset) % len(takers) < remainder) for place, host in enumerate(takers)}
        full = {host: caps[host] for host in takers if caps[host] < parts[host]}
        settled = full or parts
        shares.update(settled)
        left -= sum(settled.values())
        takers = [host for host in takers if host not in settled]
    return Split(shares=shares, unassigned=left)


def differences(
    plan: Mapping[str, Split], processes: Sequence[ProcessRow], stored: Sequence[Share]
) -> list[Assignment]:
    """What must be written for the stored shares to be those of the plan; nothing in a steady cluster.

    Processes that are to have none any more are set to 0, those of a queue without a total to nothing. Rows of
    processes that are not on the list are left: they go with the next pruning.
    """
    known = {row.info.host_id for row in processes}
    now = {(row.queue, row.host_id): row.share for row in stored if row.host_id in known}
    wanted: dict[tuple[str, str], int | None] = {
        (queue, host): share for queue, split in plan.items() for host, share in split.shares.items()
    }
    for (queue, host), share in now.items():
        if (queue, host) not in wanted:
            wanted[queue, host] = None if queue not in plan or share is None else 0
    return [
        Assignment(queue=queue, host_id=host, share=share)
        for (queue, host), share in sorted(wanted.items())
        if now.get((queue, host)) != share
    ]


def unassigned(queue: QueueSettings, shares: Sequence[Share]) -> int | None:
    """What is left of the queue's total beyond these shares, those of live processes; None without a total."""
    if queue.max_workers is None:
        return None
    given = sum(one.share or 0 for one in shares if one.queue == queue.name)
    return max(queue.max_workers - given, 0)
