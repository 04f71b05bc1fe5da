"""A program with OpenTelemetry's own SDK: `python -m process.traced enqueue|bulk|work URL [child|link|off]`.

It ends by printing its spans, one JSON document a line, as its in-memory exporter has them; lines of `ctx.log` too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from opentelemetry import baggage, context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime, open_storage, tracing

handlers = HandlerRegistry()
seen: list[dict[str, Any]] = []


@handlers.handler("parent")
async def parent(ctx: JobCtx) -> None:
    seen.append({"seen": "baggage", **{str(k): v for k, v in baggage.get_all().items()}})
    ctx.log.info("within the span")
    with trace.get_tracer("app").start_as_current_span("own work"):
        await ctx.enqueue(EnqueueRequest("child"))
    async with ctx.transaction() as tx:
        await tx.enqueue(EnqueueRequest("child"))


@handlers.handler("child")
async def child(ctx: JobCtx) -> None: ...


@handlers.handler("bad")
async def bad(ctx: JobCtx) -> None:
    raise ValueError("no good")


class Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "forge_jobs.job":
            ids = {name: getattr(record, name, None) for name in ("trace_id", "span_id", "job_id")}
            seen.append({"seen": "line", **ids})


async def main(command: str, url: str, runs: Any = "child") -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    tracing.configure(runs=runs, baggage=["tenant"])
    logging.basicConfig(level=logging.INFO, handlers=[Lines()])
    async with open_storage(url) as storage:
        match command:
            case "enqueue":
                context.attach(baggage.set_baggage("secret", "s", baggage.set_baggage("tenant", "acme")))
                with trace.get_tracer("app").start_as_current_span("request"):
                    await storage.jobs.enqueue(EnqueueRequest("parent", queue="default", tags=("web",)))
            case "bulk":
                await storage.jobs.enqueue_bulk([EnqueueRequest("child", queue="default") for _ in range(3)])
            case "bad":
                await storage.jobs.enqueue(EnqueueRequest("bad", queue="default", max_attempts=1))
            case "work":
                await QueueRuntime(storage, handlers).drain()
    for span in exporter.get_finished_spans():
        print(json.dumps(as_json(span)))
    for one in seen:
        print(json.dumps(one))


def as_json(span: ReadableSpan) -> dict[str, Any]:
    assert span.context is not None
    return {
        "name": span.name,
        "kind": span.kind.name,
        "trace": span.context.trace_id,
        "id": span.context.span_id,
        "parent": span.parent.span_id if span.parent else None,
        "links": [link.context.span_id for link in span.links],
        "attributes": dict(span.attributes or {}),
        "status": span.status.status_code.name,
        "times": [span.start_time, span.end_time],
        "events": [event.name for event in span.events],
    }


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
