"""`/events`: the stream of news."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Query
from starlette.responses import StreamingResponse

from forge_jobs.api.call import Caller
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Role
from forge_jobs.api.model.common import Asked
from forge_jobs.api.problem import Problem
from forge_jobs.api.stream import Wanted

router = api_router()


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


class EventsQuery(Asked):
    """What to hear of."""

    queue: str | None = None
    kind: str | None = None
    job: str | None = None


@endpoint(router, "GET", "/events", role=Role.READ, media_type=EventStream, tag="overview")
async def events(call: Caller, asked: Annotated[EventsQuery, Query()]) -> EventStream:
    """News as server-sent events: `job`, `queue`, `worker`, `schedule`, `limit`, `banner`, `tick`.

    The data of each is `{"items": […]}`: ids and changed fields, never payloads. With `Last-Event-ID` a stream goes on
    where it broke off, within the last 1 000 events; else it begins with `resync`: read everything anew. Every stream
    tells the banners that there are; one that is gone comes as its `id` with `removed`.
    """
    if asked.queue is not None:
        call.see_queue(asked.queue)
    services = call.services
    wanted = Wanted(queue=asked.queue, kind=asked.kind, job=asked.job, own=call.identity.queues)
    last = call.request.headers.get("last-event-id")
    listener, complete = services.hub.listen(wanted, last)

    async def still_admitted() -> bool:
        try:
            identity = await services.authenticator.identify(call.request, needed=True)
        except Problem:
            return False
        return identity == call.identity

    async def body() -> AsyncIterator[bytes]:
        try:
            async for frame in services.hub.frames(listener, complete, still_admitted):
                yield frame
        finally:
            services.hub.leave(listener)

    return EventStream(body(), headers={"X-Accel-Buffering": "no"})
