"""Splits the totals of queues fairly over the processes that serve them, in one process of the cluster.

It only says who should have how many slots. That never more are open than the total is seen to when slots are opened,
so a rebalancer that is late, or two at a time, cost fairness for a while and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from forge_jobs.runtime.env import RuntimeEnv
from forge_jobs.runtime.loops.loop import Loop
from forge_jobs.runtime.shares import Split, differences, plan_shares
from forge_jobs.storage.protocol import CLUSTER, Storage
from forge_jobs.storage.types.share import Assignment

log = logging.getLogger("forge_jobs.rebalance")


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """The split of every queue that has a total, and what was written to make it so."""

    splits: Mapping[str, Split]
    written: Sequence[Assignment]


async def tick(env: RuntimeEnv) -> Rebalanced:
    """One round.

    After an outage of the store nobody's heartbeat is young: the others get the chance to beat before their shares
    are given away.
    """
    if env.beat_overdue or env.just_back:
        return Rebalanced({}, ())
    return await rebalance_once(env.storage, env.config.stale_after)


async def rebalance_once(storage: Storage, stale_after: timedelta = timedelta(seconds=30)) -> Rebalanced:
    """One-shot: split the totals over the processes whose heartbeat is younger than `stale_after`.

    Only differences are written; without a live process nothing is.
    """
    processes = await storage.processes.list(stale_after)
    if not any(row.live for row in processes):
        return Rebalanced({}, ())
    plan = plan_shares(await storage.queues.list(), processes)
    changes = differences(plan, processes, await storage.shares.list())
    if changes and await storage.shares.assign(changes):
        storage.wake([CLUSTER])
        for queue in sorted({change.queue for change in changes} & plan.keys()):
            shares = ",".join(str(share) for _, share in sorted(plan[queue].shares.items()))
            log.info("rebalanced queue=%s shares=%s unassigned=%d", queue, shares, plan[queue].unassigned)
    return Rebalanced(plan, changes)


LOOP = Loop("rebalance", lambda env: env.config.rebalance_s, tick, leased=True, wake_on=CLUSTER)
