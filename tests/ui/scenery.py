"""A store with something of everything to look at, made by a real worker."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, NotRequired, TypedDict

from forge_jobs import Dead, EnqueueRequest, HandlerRegistry, JobCtx, JobOutcome, QueueRuntime, Storage
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration
from forge_jobs.storage.types.schedule import ScheduleDeclaration

HOSTILE = "</td><script>window.hacked = 1</script>"
HOSTILE_PAYLOAD = {
    "<img src=x onerror='window.hacked=2'>": "javascript:window.hacked=3",
    "direction": "abc\u202eexe.gpj",
    "nothing": "a\u200bb",
    "password": "hunter2",
    "big": 123456789012345678901234567890,
}
QUEUES = ("mail", "images", "reports")
handlers = HandlerRegistry()


class Mail(TypedDict):
    """Somebody to write to."""

    to: str
    fail: NotRequired[bool]
    dialect: NotRequired[str]


@handlers.handler("mail.send", max_attempts=2, redact=["dialect"])
async def send(ctx: JobCtx, payload: Mail) -> None:
    """Send a mail."""
    if payload.get("fail"):
        raise ConnectionError(f"smtp.example.org refused {payload['to']}")


@handlers.handler("card.charge", executor="thread", rate_limit="bank", payload_view="hidden", max_attempts=1)
def charge(payload: Any) -> None:
    raise ValueError(f"no card {payload['number']}")


@handlers.handler("image.resize")
async def resize(ctx: JobCtx, payload: Any) -> None:
    ctx.progress(3, total=8, message="tile 3")
    await ctx.cancel.wait()
    ctx.cancel.raise_if_cancelled()


@handlers.handler("report.build")
async def build(ctx: JobCtx, payload: Any) -> JobOutcome | None:
    if payload.get("account") == 0:
        return Dead(f"no account {HOSTILE}")
    await ctx.enqueue(EnqueueRequest("mail.send", {"to": "owner@example.org"}, queue="mail"))
    return None


async def furnish(storage: Storage) -> None:
    """Jobs in every status, a running one as soon as a worker serves `images`; schedules, limits, a queue that nobody
    serves, and one that is paused."""
    jobs = storage.jobs
    await storage.rate_limits.add(RateLimitDeclaration(scope="bank", capacity=20, refill_per_s=1))
    await jobs.enqueue_bulk(
        [EnqueueRequest("mail.send", {"to": f"user{n}@example.org"}, queue="mail") for n in range(30)]
    )
    await jobs.enqueue_bulk(
        [EnqueueRequest("mail.send", {"to": f"gone{n}@example.org", "fail": True}, queue="mail", max_attempts=1)
         for n in range(4)]
        + [EnqueueRequest("mail.send", {"to": "slow@example.org", "fail": True}, queue="mail")]
        + [EnqueueRequest("report.build", {"account": n}, queue="reports", tags=["monthly"]) for n in (0, 7)]
    )  # fmt: skip
    worker = QueueRuntime(storage, handlers, ["mail", "reports"], name="earlier")
    async with asyncio.timeout(30):
        await worker.drain()
    await storage.events.flush()
    await jobs.enqueue_bulk(
        [EnqueueRequest("mail.send", {"to": f"later{n}@example.org"}, queue="mail", delay=timedelta(hours=n + 1))
         for n in range(5)]
        + [EnqueueRequest("ledger.close", {"day": n}, queue="billing") for n in range(3)]
        + [EnqueueRequest("image.resize", {"file": "a.jpg"}, queue="images")]
        + [EnqueueRequest("mail.send", HOSTILE_PAYLOAD, queue="mail", dedupe_key=HOSTILE, tags=["<b>b</b>"], delay=99)]
    )  # fmt: skip
    await storage.schedules.add(ScheduleDeclaration("nightly", "report.build", "30 2 * * *", zone="Europe/Berlin"))
    await storage.rate_limits.add(RateLimitDeclaration(scope="smtp", capacity=50, refill_per_s=1))
    await storage.queues.ensure("idle")
    await storage.queues.pause("idle")
