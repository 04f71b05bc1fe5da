"""A process that spends the budget of a scope: `python -m process.spender URL SCOPE CALLERS SECONDS`.

So many callers ask for tokens one by one, each again at once or when a refusal says so, for so long. It prints the
store's time of every grant, in seconds, as JSON. `FORGE_TEST_CLOCK_AHEAD_S` sets its wall clock as for a worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from forge_jobs import Granted, open_storage
from forge_jobs.storage.protocol import Storage

from .worker_main import CLOCK_AHEAD, set_clock


async def spend(storage: Storage, scope: str, until: float, grants: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while (left := until - loop.time()) > 0:
        answer = await storage.rate_limits.acquire(scope)
        if isinstance(answer, Granted):
            grants.append(answer.at.timestamp())
        else:
            await asyncio.sleep(min(answer.retry_after.total_seconds(), left))


async def main(url: str, scope: str, callers: int, seconds: float) -> None:
    grants: list[float] = []
    async with open_storage(url) as storage:
        sys.stdin.readline()  # all begin together
        until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(spend(storage, scope, until, grants))
    sys.stdout.write(json.dumps(grants))


if __name__ == "__main__":
    set_clock(float(os.environ.get(CLOCK_AHEAD, "0")))
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
