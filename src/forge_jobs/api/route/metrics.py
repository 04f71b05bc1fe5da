"""`/metrics`: numbers for Prometheus."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.identity import Identity
from forge_jobs.api.problem import Problem
from forge_jobs.prometheus.exposition import CONTENT_TYPE

router = api_router()


class Exposed(PlainTextResponse):
    """The text format of Prometheus."""


@endpoint(router, "GET", "/metrics", role=None, media_type=Exposed, tag="health")
async def metrics(request: Request) -> Exposed:
    """Numbers for Prometheus.

    Where callers need tokens this needs one of the role read, unless the server was told that it is public.
    """
    identity: Identity | None = request.scope["forge.identity"]
    if identity is not None and identity.queues is not None:
        raise Problem("forbidden", "this token is limited to queues, and metrics are of all of them")
    text = await request.scope["forge.services"].exposition.render()
    return Exposed(text, headers={"Content-Type": CONTENT_TYPE})
