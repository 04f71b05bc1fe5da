"""A worker process for the tests: `python -m process.worker_main worker MODULE:REGISTRY --database URL …`.

The arguments and `FORGE_…` variables are those of `forge-jobs worker`; `FORGE_FAILPOINTS` arms failpoints, and
`FORGE_TEST_CLOCK_AHEAD_S` sets the wall clock, as this program sees it, so many seconds ahead.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NoReturn

from forge_jobs import (
    QueueRuntime,
    RuntimeConfig,
    StorageError,
    StoreConfig,
    StoreUnavailable,
    failpoints,
    open_storage,
)
from forge_jobs.clock import SystemClock

CLOCK_AHEAD = "FORGE_TEST_CLOCK_AHEAD_S"


def main() -> NoReturn:
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(name)s %(message)s")
    failpoints.arm_from(os.environ)
    set_clock(float(os.environ.get(CLOCK_AHEAD, "0")))
    try:
        status = asyncio.run(work(parse()))
    except (StorageError, StoreUnavailable) as error:
        logging.critical("unusable: %s", error)
        status = 1
    logging.shutdown()
    os._exit(status)


def set_clock(ahead_s: float) -> None:
    """Let this process run on a host whose wall clock is wrong. The clocks that only go forward stay as they are."""
    now_ns, ahead_ns = time.time_ns, round(ahead_s * 1e9)
    if ahead_ns:
        time.time_ns = lambda: now_ns() + ahead_ns
        time.time = lambda: (now_ns() + ahead_ns) / 1e9
        logging.info("clock_set ahead_s=%.0f", (SystemClock().now_us() - now_ns() // 1000) / 1e6)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["worker"])
    parser.add_argument("handlers")
    for option in ("--database", "--queues", "--slots", "--name"):
        parser.add_argument(option, required=True)
    return parser.parse_args()


async def work(asked: argparse.Namespace) -> int:
    module, _, attribute = asked.handlers.partition(":")
    handlers = getattr(importlib.import_module(module), attribute)
    async with open_storage(asked.database, config=StoreConfig(**from_environment(StoreConfig))) as storage:
        runtime = QueueRuntime(
            storage,
            handlers,
            queues=asked.queues.split(","),
            slots=int(asked.slots),
            name=asked.name,
            config=RuntimeConfig(**from_environment(RuntimeConfig)),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runtime.request_stop)
        await runtime.run()
        return 1 if runtime.report.abandoned else 0


def from_environment(kind: Any, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The fields of a configuration that the environment names."""
    found = {field: environment.get(f"FORGE_{field.name.upper()}") for field in fields(kind)}
    return {
        field.name: int(text) if field.type == "int" else float(text)
        for field, text in found.items()
        if text is not None
    }


if __name__ == "__main__":
    main()
    sys.exit()
