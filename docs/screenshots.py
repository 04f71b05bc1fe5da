"""Make the pictures of the dashboard: `python docs/screenshots.py`, into `docs/images/`.

An hour of work is run by a real worker on a clock that is moved, then `forge-jobs serve` shows it to Chromium. With
`--serve` the server stays, so that one can work on the dashboard with something to look at. It needs the test extra,
Chromium and, for the pictures that are published, the fonts of Debian's `fonts-inter` and `fonts-jetbrains-mono`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from forge_jobs import (
    Dead,
    DeadError,
    EnqueueRequest,
    HandlerRegistry,
    JobCtx,
    JobOutcome,
    QueueRuntime,
    Storage,
    open_storage,
)
from forge_jobs.clock import ManualClock
from forge_jobs.storage.types.queue import QueueChange
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration
from forge_jobs.storage.types.schedule import ScheduleDeclaration

HERE = Path(__file__).parent
MINUTES = 60
QUEUES = ("mail", "images", "reports")
SHOTS = {"overview": "/", "dead": "/dead", "queues": "/queues"}

chance = random.Random(7)  # noqa: S311 - the same pictures each time
handlers = HandlerRegistry()
past: ManualClock | None = None


async def work(low_s: float, high_s: float) -> None:
    """So much time passes: on the moved clock at once, else as it is."""
    seconds = chance.uniform(low_s, high_s)
    if past is None:
        await asyncio.sleep(seconds)
    else:
        past.advance(seconds)


@handlers.handler("mail.send")
async def send(ctx: JobCtx, payload: Any) -> None:
    ctx.log.info("connecting to smtp.example.org")
    await work(0.02, 0.2)
    if chance.random() < 0.06:
        raise ConnectionError(f"smtp.example.org:587 refused the connection after {chance.randrange(3, 20)} s")


@handlers.handler("image.resize")
async def resize(ctx: JobCtx, payload: Any) -> None:
    for tile in range(1, 9):
        ctx.progress(tile, total=8, message=f"tile {tile}")
        await work(0.05, 0.2) if past else await work(20, 60)
    if chance.random() < 0.05:
        raise DeadError(f"cannot read {payload['file']}: truncated")


@handlers.handler("report.build")
async def build(ctx: JobCtx, payload: Any) -> JobOutcome | None:
    await work(0.5, 2)
    return Dead("the account is closed") if chance.random() < 0.1 else None


async def furnish(url: str) -> None:
    """An hour of work, up to now."""
    global past
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    past = ManualClock(end - timedelta(minutes=MINUTES))
    async with open_storage(url, clock=past) as storage:
        await settings(storage)
        for minute in range(MINUTES):
            await storage.jobs.enqueue_bulk(batch(minute))
            await QueueRuntime(storage, handlers, QUEUES, slots=4, name="mail-1").drain()
            await storage.events.flush()
            behind = end - timedelta(minutes=MINUTES - minute - 1) - past.now()
            past.advance(max(behind, timedelta(0)))
            await storage.metrics.rollup()
    past = None
    async with open_storage(url) as storage:
        await storage.jobs.enqueue_bulk(
            [EnqueueRequest("image.resize", {"file": f"/in/{n}.jpg", "width": 1280}, queue="images") for n in range(18)]
            + [EnqueueRequest("report.build", {"account": n}, queue="reports", delay=600 * n) for n in range(1, 20)]
            + [EnqueueRequest("ledger.close", {"day": n}, queue="billing") for n in range(7)]
        )


async def settings(storage: Storage) -> None:
    await storage.queues.ensure("mail", QueueChange(max_workers=12))
    await storage.schedules.add(ScheduleDeclaration("nightly", "report.build", "30 2 * * *", zone="Europe/Berlin"))
    await storage.rate_limits.add(RateLimitDeclaration(scope="smtp", capacity=100, refill_per_s=5))


def batch(minute: int) -> list[EnqueueRequest]:
    busy = 60 + int(40 * abs((minute % 40) - 20) / 20) + chance.randrange(20)
    return [
        *(EnqueueRequest("mail.send", {"to": f"user{chance.randrange(9999)}@example.org"}, queue="mail",
                         max_attempts=1 if n % 10 == 0 else 3)
          for n in range(busy)),
        *(EnqueueRequest("image.resize", {"file": f"/in/{minute}-{n}.jpg", "width": 1280}, queue="images")
          for n in range(6)),
        *(EnqueueRequest("report.build", {"account": chance.randrange(999)}, queue="reports") for _ in range(3)),
    ]  # fmt: skip


async def shoot(url: str, folder: Path) -> None:
    """The pictures in both themes, and one of a phone."""
    folder.mkdir(exist_ok=True)
    chromium = os.environ.get("FORGE_CHROMIUM") or shutil.which("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for theme, names in (("light", SHOTS), ("dark", {"overview": "/", "job": "job"}), ("phone", {"overview": "/"})):
            size = (390, 780) if theme == "phone" else (1280, 800)
            context = await browser.new_context(
                viewport={"width": size[0], "height": size[1]},
                color_scheme="dark" if theme == "dark" else "light",
                reduced_motion="reduce",
            )
            page = await context.new_page()
            for name, place in names.items():
                await page.goto(f"{url}#{'/jobs?q=kind:ledger.close' if place == 'job' else place}")
                await page.locator(".live.live").wait_for()
                if place == "job":
                    await page.locator("tbody tr").first.click()
                    await page.locator(".drawer .explain").wait_for()
                await page.wait_for_timeout(800)  # charts and rows
                await page.screenshot(path=folder / f"dashboard-{name}-{theme}.png")
            await context.close()
        await browser.close()


def serve(database: str) -> tuple[subprocess.Popen[str], str]:
    """A server with a worker, and its address."""
    environment = {**os.environ, "FORGE_QUEUES": ",".join(QUEUES), "FORGE_WORKER_NAME": "mail-1",
                   "FORGE_CLEANUP_S": "1", "FORGE_METRICS_S": "1"}  # fmt: skip
    command = [sys.executable, "-m", "forge_jobs", "serve", "--database", database, "--port", "8787"]
    process = subprocess.Popen(
        [*command, "--workers", "screenshots:handlers"], cwd=HERE, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"on (http://\S+)", line):
            time.sleep(3)  # until the worker has begun everything that it does
            return process, found[1]
    raise SystemExit("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="leave the server on until Ctrl-C, and make no pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/jobs.db"
        asyncio.run(furnish(database))
        process, url = serve(database)
        try:
            if options.serve:
                print(f"{url} until Ctrl-C")  # noqa: T201
                process.wait()
            else:
                asyncio.run(shoot(url, HERE / "images"))
        except KeyboardInterrupt:
            pass
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
