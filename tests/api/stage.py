"""Callers of an app, and a store with something of everything in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2

from forge_jobs import EnqueueRequest
from forge_jobs.api import ApiConfig, create_app
from forge_jobs.api.guard import Guard
from forge_jobs.api.tokens import Tokens
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.kind import KindDeclaration
from forge_jobs.storage.types.process import ProcessInfo, ProcessState
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration
from forge_jobs.storage.types.schedule import ScheduleDeclaration

ROLES = ("read", "operate", "admin")
TOKENS = {role: f"{role}-token-of-enough-length-to-be-safe" for role in (*ROLES, "limited")}
HOST_ID = "01JH3V7M8Q2X4N5P6R7S8T9VWX"


def token_file(folder: Path) -> Path:
    """A file with a token for each role, and one that is limited to the queue `mail`."""
    path = folder / "tokens.json"
    entries: list[dict[str, Any]] = [
        {"name": role, "sha256": hashlib.sha256(token.encode()).hexdigest(), "role": role}
        for role, token in TOKENS.items()
        if role in ROLES
    ]
    limited = {"name": "limited", "role": "operate", "queues": ["mail"]}
    entries.append({**limited, "sha256": hashlib.sha256(TOKENS["limited"].encode()).hexdigest()})
    path.write_text(json.dumps({"tokens": entries}))
    path.chmod(0o600)
    return path


def guarded(storage: Storage, folder: Path, **options: Any) -> Guard:
    """An app that asks for tokens."""
    return create_app(storage, ApiConfig(tokens=Tokens(token_file(folder)), **options))


def caller(app: Guard, role: str | None = None, **options: Any) -> httpx2.AsyncClient:
    """Who calls an app in this process, with the token of a role; a program, not a browser."""
    headers: dict[str, str] = {} if role is None else {"Authorization": f"Bearer {TOKENS[role]}"}
    headers |= options.pop("headers", {})
    transport = httpx2.ASGITransport(app=app, client=("192.0.2.7", 4711))
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers, **options)


def local(app: Guard) -> httpx2.AsyncClient:
    """Who calls an app without tokens."""
    return caller(app, headers={"Sec-Fetch-Site": "none"})


@dataclass(frozen=True, slots=True)
class Furnished:
    """What `furnish` put into a store."""

    job: str
    other: str
    dead: str


async def furnish(storage: Storage) -> Furnished:
    """Jobs in two queues, a worker, a schedule and a rate limit."""
    job = await storage.jobs.enqueue(EnqueueRequest("send", {"to": "a"}, queue="mail", tags=["t"]))
    other = await storage.jobs.enqueue(EnqueueRequest("build", {"n": 1}, queue="other", dedupe_key="k"))
    dead = await storage.jobs.enqueue(EnqueueRequest("send", {"to": "b"}, queue="mail"))
    await storage.jobs.cancel(dead.id)
    await storage.schedules.add(ScheduleDeclaration("nightly", "report", "0 3 * * *", queue="mail"))
    await storage.rate_limits.ensure(RateLimitDeclaration(scope="gh", capacity=10, refill_per_s=1))
    await storage.kinds.declare([KindDeclaration(kind="send", rate_limit="gh")], host_id=HOST_ID)
    heart = storage.processes.open_heart(timedelta(seconds=5))
    try:
        heart.beat(process(), ())
    finally:
        heart.close()
    return Furnished(job.id, other.id, dead.id)


def process(host_id: str = HOST_ID) -> ProcessInfo:
    """A worker of the queue `mail` as its heartbeat describes it."""
    return ProcessInfo(
        host_id=host_id,
        label="w1",
        host_name="here",
        pid=1,
        version="0",
        queues=("mail",),
        kinds=("send",),
        slots={"mail": 2},
        running={},
        state=ProcessState.RUNNING,
    )


def problem(response: httpx2.Response) -> Mapping[str, Any]:
    """The body of a refusal, whose shape is checked."""
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == response.status_code
    assert {"type", "title", "status", "code", "detail", "request_id"} <= body.keys()
    assert body["request_id"] == response.headers["x-request-id"]
    return body
