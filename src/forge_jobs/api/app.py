"""The app: routes behind the guard."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from forge_jobs.api.answer import refusal
from forge_jobs.api.attempts import Attempts
from forge_jobs.api.authenticate import Authenticator
from forge_jobs.api.banners import Banners
from forge_jobs.api.config import ApiConfig
from forge_jobs.api.doctor import Doctor
from forge_jobs.api.guard import Guard
from forge_jobs.api.methods import methods_of
from forge_jobs.api.operations import Operations
from forge_jobs.api.pages import page_routes
from forge_jobs.api.problem import CODE_OF_STATUS, Problem, problem_of, problem_of_validation
from forge_jobs.api.route import (
    audit,
    enqueue,
    events,
    explain,
    groups,
    health,
    job_acts,
    jobs,
    limit_acts,
    limits,
    login,
    metrics,
    operations,
    overview,
    queue_acts,
    queues,
    schedule_acts,
    schedules,
    store,
    worker_acts,
    workers,
)
from forge_jobs.api.services import Services
from forge_jobs.api.stream import Hub
from forge_jobs.prometheus.exposition import Exposition
from forge_jobs.storage.error import ForgeError
from forge_jobs.storage.protocol import Storage
from forge_jobs.version import __version__

log = logging.getLogger("forge_jobs.api")

PREFIX = "/api/v1"
FAULT = "something went wrong here; the server's log says what"
ROUTERS = tuple(
    part.router
    for part in (
        groups, explain, operations, enqueue, jobs, job_acts, queues, queue_acts, schedules, schedule_acts, limits,
        limit_acts, workers, worker_acts, overview, events, store, audit, login,
    )
)  # fmt: skip
_NO_CONFIG = ApiConfig()


def create_app(storage: Storage, config: ApiConfig = _NO_CONFIG) -> Guard:
    """An ASGI app over an open store. The store stays the caller's, and must stay open while the app serves.

    It may be mounted under a prefix: `app.mount("/jobs", create_app(storage, config))`. Without tokens and without
    `authenticate` every caller may do everything, so give it one of them unless nobody else reaches the app.
    """
    api = _api()
    attempts, banners = Attempts(), Banners(storage)
    services = Services(
        attempts=attempts,
        authenticator=Authenticator(config, storage, attempts),
        banners=banners,
        operations=Operations(storage),
        hub=Hub(storage, banners, config.streams, config.stale_after),
        exposition=Exposition(storage, stale_after=config.stale_after),
        doctor=Doctor(storage, config.stale_after),
    )
    return Guard(api, storage, config, services)


def openapi() -> dict[str, Any]:
    """The description of all routes."""
    return _api().openapi()


def routes() -> list[tuple[str, str]]:
    """Every route that there is, as method and path."""
    found = []
    for path, methods in openapi()["paths"].items():
        found += [(method.upper(), path) for method in methods]
    return [*found, ("GET", "/openapi.json")]


@cache
def _api() -> FastAPI:
    """The routes. They keep nothing of a store: what they need comes with each request."""
    api = FastAPI(
        title="forge-jobs",
        version=__version__,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in ROUTERS:
        api.include_router(router, prefix=PREFIX)
    api.include_router(health.router)
    api.include_router(metrics.router)
    api.router.routes.extend(page_routes())
    api.add_exception_handler(HTTPException, _on_http)
    api.add_exception_handler(RequestValidationError, _on_validation)
    api.add_exception_handler(ForgeError, _on_error)
    api.add_exception_handler(Exception, _on_fault)
    return api


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Problem):
        problem = error
    elif isinstance(error.__cause__, HTTPException):
        problem = Problem("internal", "")
    else:
        code = CODE_OF_STATUS.get(error.status_code, "validation")
        details = {404: "there is nothing here", 405: f"{request.method} is not known here"}
        detail = details.get(error.status_code, "the request cannot be read")
        headers = (
            {"Allow": ", ".join(methods_of(request.app, request.scope))} if error.status_code == 405 else error.headers
        )
        problem = Problem(code, detail, headers=headers)
    return refusal(problem, request.scope["forge.request_id"])


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return refusal(problem_of_validation(error.errors()), request.scope["forge.request_id"])


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ForgeError)
    if problem_of(error).status_code >= 500:
        log.warning("api_store request_id=%s error=%r", request.scope["forge.request_id"], error)
    return refusal(problem_of(error), request.scope["forge.request_id"])


async def _on_fault(request: Request, error: Exception) -> Response:
    """The guard, which the error is raised to all the same, logs it."""
    return refusal(Problem("internal", FAULT), request.scope["forge.request_id"])
