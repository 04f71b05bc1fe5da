"""The demo's handlers, as a user would write them.

A job lists the upstream's files page by page and enqueues one job for each; those fetch their file, count what is in
it, store the result and enqueue one job for each module the file imports. Everything a job needs is in its payload.
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from dataclasses import asdict
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from forge_jobs import DeadError, EnqueueRequest, HandlerRegistry, JobCtx, Refused, ThrottledError
from forge_jobs.demo import results
from forge_jobs.demo.corpus import measure
from forge_jobs.demo.upstream import ATTEMPT_HEADER, FENCE_HEADER, JOB_HEADER

LIST: Final = "demo_list"
FILE: Final = "demo_file"
MODULE: Final = "demo_module"
KINDS: Final = (LIST, FILE, MODULE)

UPSTREAM_QUEUE: Final = "upstream"
LOCAL_QUEUE: Final = "local"
"""A queue stands for one upstream: when it cools down, the work that needs no upstream goes on."""

UPSTREAM_LIMIT: Final = "upstream"
"""One budget for all workers. The numbers declared here suit any upstream; who runs the demo knows this one's."""

RETRIES_S: Final = (0.3, 0.5, 1.0)
FETCH_TIMEOUT_S: Final = 10
ONCE_S: Final = 3600
"""How long a file or module is not enqueued again, even when its job is finished."""

handlers = HandlerRegistry()
handlers.limit(UPSTREAM_LIMIT, capacity=2, refill_per_s=4)


@handlers.handler(LIST, queue=UPSTREAM_QUEUE, timeout=30, backoff=RETRIES_S)
async def list_files(ctx: JobCtx, payload: dict[str, Any]) -> None:
    """Enqueue a job for every file. Run again after a crash or a 429 it starts over; the keys keep each job single."""
    page: int | None = 1
    while page is not None:
        granted = await ctx.rate_limit.acquire(UPSTREAM_LIMIT, wait=True)
        if isinstance(granted, Refused):
            raise ThrottledError(granted.retry_after, cool_down=False)
        answer = json.loads(await _get(ctx, f"{payload['upstream']}/files?page={page}"))
        await ctx.enqueue_bulk([_file_request(payload, file["path"]) for file in answer["files"]])
        ctx.progress(page, answer["pages"], f"page {page} of {answer['pages']}")
        page = answer["next"]


@handlers.handler(FILE, queue=UPSTREAM_QUEUE, timeout=30, backoff=RETRIES_S, rate_limit=UPSTREAM_LIMIT)
async def count_file(ctx: JobCtx, payload: dict[str, Any]) -> None:
    """Fetch a file, count, store, and enqueue what follows from it."""
    source = await _get(ctx, f"{payload['upstream']}/files/{quote(payload['path'])}")
    found = await asyncio.to_thread(measure, source)
    await _store(ctx, payload, payload["path"], asdict(found))
    await ctx.enqueue_bulk(
        [
            EnqueueRequest(
                MODULE,
                {"module": module, "results": payload["results"]},
                queue=LOCAL_QUEUE,
                dedupe_key=f"module:{module}",
                unique_for=ONCE_S,
            )
            for module in found.imports
        ]
    )


@handlers.handler(MODULE, queue=LOCAL_QUEUE, timeout=30, backoff=RETRIES_S)
async def locate_module(ctx: JobCtx, payload: dict[str, Any]) -> None:
    """Find out where Python would import a module from, without importing anything."""
    origin = await asyncio.to_thread(_origin, payload["module"])
    await _store(ctx, payload, payload["module"], {"origin": origin})


def _file_request(payload: dict[str, Any], path: str) -> EnqueueRequest:
    return EnqueueRequest(
        FILE,
        {"upstream": payload["upstream"], "path": path, "results": payload["results"]},
        queue=UPSTREAM_QUEUE,
        dedupe_key=f"file:{path}",
        unique_for=ONCE_S,
    )


async def _get(ctx: JobCtx, url: str) -> bytes:
    """The body of a 200; a 429 and a 404 end the run as they should, any other answer raises.

    A 429 also empties the rate limit until its Retry-After is over, for all workers.
    """
    headers = {JOB_HEADER: ctx.job_id, FENCE_HEADER: str(ctx.fence), ATTEMPT_HEADER: str(ctx.attempt)}
    try:
        return await asyncio.to_thread(_fetch, urllib.request.Request(url, headers=headers))  # noqa: S310
    except urllib.error.HTTPError as refusal:
        with refusal:
            if refusal.code == 429:
                raise ThrottledError(float(refusal.headers["Retry-After"])) from refusal
            if refusal.code == 404:
                raise DeadError("the upstream does not have it (404)") from refusal
            raise


def _fetch(request: urllib.request.Request) -> bytes:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the upstream is on this machine
    with direct.open(request, timeout=FETCH_TIMEOUT_S) as answer:
        body: bytes = answer.read()
    return body


async def _store(ctx: JobCtx, payload: dict[str, Any], item: str, found: dict[str, Any]) -> None:
    result = results.Result(
        job_id=ctx.job_id, kind=ctx.kind, item=item, found=found, attempt=ctx.attempt, fence=ctx.fence
    )
    await asyncio.to_thread(results.store, Path(payload["results"]), result)


def _origin(module: str) -> str | None:
    if module in sys.builtin_module_names:
        return "built-in"
    spec = PathFinder.find_spec(module)
    return None if spec is None else spec.origin
