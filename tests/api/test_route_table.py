"""Every route, and what it answers to everybody: a route without a row here fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from forge_jobs.api.app import routes
from forge_jobs.api.guard import Guard
from forge_jobs.storage.protocol import Storage

from .stage import HOST_ID, TOKENS, Furnished, furnish, guarded

READ, OPERATE, ADMIN, ANYBODY = "read", "operate", "admin", "anybody"


@dataclass(frozen=True, slots=True)
class Row:
    """A route, the least role that it is for, and a good call of it."""

    method: str
    path: str
    role: str
    ok: int = 200
    url: str = ""
    body: Mapping[str, Any] | None = None
    changes: bool = False

    @property
    def called(self) -> str:
        return self.url or self.path


def _change(method: str, path: str, role: str, ok: int = 200, url: str = "", body: Any = None) -> Row:
    return Row(method, path, role, ok, url, body, changes=True)


J, Q, S, L, W = "/api/v1/jobs", "/api/v1/queues", "/api/v1/schedules", "/api/v1/rate-limits", "/api/v1/workers"
TABLE = (
    Row("GET", J, READ),
    Row("GET", f"{J}/groups", READ),
    Row("GET", f"{J}/{{id}}", READ, url=f"{J}/JOB"),
    Row("GET", f"{J}/{{id}}/events", READ, url=f"{J}/JOB/events"),
    Row("GET", f"{J}/{{id}}/payload", READ, url=f"{J}/JOB/payload"),
    Row("GET", f"{J}/{{id}}/log", READ, url=f"{J}/JOB/log"),
    Row("GET", f"{J}/{{id}}/explain", READ, url=f"{J}/JOB/explain"),
    _change("POST", J, OPERATE, 201, body={"kind": "k", "queue": "mail"}),
    _change("POST", f"{J}/bulk", OPERATE, body={"jobs": [{"kind": "k", "queue": "mail"}]}),
    _change("PATCH", f"{J}/{{id}}", OPERATE, url=f"{J}/JOB", body={"priority": 3}),
    _change("DELETE", f"{J}/{{id}}", OPERATE, url=f"{J}/JOB"),
    _change("POST", f"{J}/{{id}}/retry", OPERATE, url=f"{J}/DEAD/retry"),
    _change("POST", f"{J}/{{id}}/run-now", OPERATE, url=f"{J}/JOB/run-now"),
    _change("POST", f"{J}/{{id}}/cancel", OPERATE, url=f"{J}/JOB/cancel"),
    Row("POST", f"{J}/actions/preview", READ, body={"action": "retry", "filter": {"status": ["dead"]}}),
    _change(
        "POST", f"{J}/actions", OPERATE, 202, body={"action": "retry", "filter": {"tag": "none"}, "expected_count": 0}
    ),
    Row("GET", "/api/v1/operations/{id}", OPERATE, 404, url="/api/v1/operations/none"),
    _change("DELETE", "/api/v1/operations/{id}", OPERATE, 404, url="/api/v1/operations/none"),
    Row("GET", "/api/v1/kinds", READ),
    Row("GET", Q, READ),
    Row("GET", f"{Q}/{{name}}", READ, url=f"{Q}/mail"),
    Row("GET", f"{Q}/{{name}}/explain", READ, url=f"{Q}/mail/explain"),
    _change("POST", Q, ADMIN, 201, body={"name": "new"}),
    _change("PATCH", f"{Q}/{{name}}", OPERATE, url=f"{Q}/mail", body={"max_workers": 3}),
    _change("DELETE", f"{Q}/{{name}}", ADMIN, 409, url=f"{Q}/mail"),
    _change("POST", f"{Q}/{{name}}/pause", OPERATE, url=f"{Q}/mail/pause"),
    _change("POST", f"{Q}/{{name}}/resume", OPERATE, url=f"{Q}/mail/resume"),
    _change("POST", f"{Q}/{{name}}/clear-cool-down", OPERATE, url=f"{Q}/mail/clear-cool-down"),
    _change("POST", "/api/v1/maintenance/cleanup", ADMIN),
    Row("GET", S, READ),
    Row("GET", f"{S}/{{name}}", READ, url=f"{S}/nightly"),
    Row("GET", f"{S}/{{name}}/ticks", READ, url=f"{S}/nightly/ticks"),
    Row("GET", f"{S}/{{name}}/explain", READ, url=f"{S}/nightly/explain"),
    Row("POST", f"{S}/preview", READ, body={"expr": "0 3 * * *"}),
    _change("POST", S, OPERATE, 201, body={"name": "hourly", "kind": "k", "expr": "@hourly"}),
    _change("PATCH", f"{S}/{{name}}", OPERATE, url=f"{S}/nightly", body={"expr": "0 4 * * *"}),
    _change("DELETE", f"{S}/{{name}}", OPERATE, 204, url=f"{S}/nightly"),
    _change("POST", f"{S}/{{name}}/enable", OPERATE, url=f"{S}/nightly/enable"),
    _change("POST", f"{S}/{{name}}/disable", OPERATE, url=f"{S}/nightly/disable"),
    _change("POST", f"{S}/{{name}}/reset", OPERATE, 404, url=f"{S}/nightly/reset"),
    _change("POST", f"{S}/{{name}}/trigger", OPERATE, url=f"{S}/nightly/trigger"),
    Row("GET", L, READ),
    Row("GET", f"{L}/{{scope}}", READ, url=f"{L}/gh"),
    _change("PUT", f"{L}/{{scope}}", ADMIN, url=f"{L}/new", body={"capacity": 1.0, "refill_per_s": 1}),
    _change("POST", f"{L}/{{scope}}/drain", OPERATE, url=f"{L}/gh/drain"),
    Row("GET", W, READ),
    Row("GET", f"{W}/{{host_id}}", READ, url=f"{W}/{HOST_ID}"),
    _change("POST", f"{W}/{{host_id}}/quiet", ADMIN, url=f"{W}/{HOST_ID}/quiet"),
    _change("POST", f"{W}/{{host_id}}/resume", ADMIN, url=f"{W}/{HOST_ID}/resume"),
    _change("POST", f"{W}/{{host_id}}/stop", ADMIN, url=f"{W}/{HOST_ID}/stop"),
    Row("GET", "/api/v1/overview", READ),
    Row("GET", "/api/v1/timeline", READ),
    Row("GET", "/api/v1/series/queue", READ),
    Row("GET", "/api/v1/series/resources", READ),
    Row("GET", "/api/v1/series/store", READ),
    Row("GET", "/api/v1/events", READ),
    Row("GET", "/api/v1/storage", READ),
    Row("GET", "/api/v1/doctor", READ),
    Row("GET", "/api/v1/me", READ),
    Row("GET", "/api/v1/audit", ADMIN),
    Row("POST", "/api/v1/login", ANYBODY, 204, body={"token": TOKENS["read"]}),
    Row("POST", "/api/v1/logout", ANYBODY, 204),
    Row("GET", "/livez", ANYBODY),
    Row("GET", "/readyz", ANYBODY),
    Row("GET", "/openapi.json", ANYBODY),
    Row("GET", "/metrics", READ),
)
ROWS = [pytest.param(row, id=f"{row.method} {row.path}") for row in TABLE]


def test_every_route_has_a_row() -> None:
    assert sorted(routes()) == sorted((row.method, row.path) for row in TABLE)


@pytest.fixture(params=["memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Who may call does not depend on the backend."""
    yield "sqlite:///:memory:"


class Caller:
    """Calls rows in the name of roles."""

    def __init__(self, app: Guard, made: Furnished) -> None:
        self._app = app
        self._made = made

    async def __call__(self, row: Row, role: str | None, **headers: str) -> int:
        url = row.called.replace("JOB", self._made.job).replace("DEAD", self._made.dead)
        sent = {"Authorization": f"Bearer {TOKENS[role]}"} if role else {"Sec-Fetch-Site": "same-origin"}
        transport = httpx2.ASGITransport(app=self._app)
        if row.path == "/api/v1/events":  # which does not end by itself: its head is what counts
            return await status_of_stream(self._app, {**sent, **headers})
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            response = await client.request(row.method, url, json=row.body, headers={**sent, **headers})
            assert response.headers["cache-control"] == "no-store"
            assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
            assert "access-control-allow-origin" not in response.headers
            return response.status_code


async def status_of_stream(app: Guard, headers: Mapping[str, str]) -> int:
    """The status of `/events`, whose caller hangs up at once."""
    status = 0

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    sent = {"host": "localhost", **{name.lower(): value for name, value in headers.items()}}
    scope = {
        "type": "http", "method": "GET", "path": "/api/v1/events", "raw_path": b"/api/v1/events", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()], "client": ("192.0.2.7", 1),
        "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("localhost", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    return status


@pytest.fixture
async def call(storage: Storage, tmp_path: Path) -> Caller:
    return Caller(guarded(storage, tmp_path), await furnish(storage))


@pytest.fixture
async def read_only(storage: Storage, tmp_path: Path) -> Caller:
    made = await furnish(storage)
    return Caller(guarded(storage, tmp_path, read_only=True), made)


@pytest.mark.parametrize("row", ROWS)
async def test_only_those_may_call_who_are_named(row: Row, call: Caller) -> None:
    order = [READ, OPERATE, ADMIN]
    assert await call(row, None) == (row.ok if row.role == ANYBODY else 401)
    for role in order:
        may = row.role == ANYBODY or order.index(role) >= order.index(row.role)
        if not may:
            assert await call(row, role) == 403
        elif role == ADMIN or row.role == ANYBODY or role == row.role:
            assert await call(row, role) == row.ok
            break  # a second call would find another state


@pytest.mark.parametrize("row", ROWS)
async def test_nothing_is_answered_under_a_strange_name(row: Row, call: Caller) -> None:
    assert await call(row, "admin", Host="jobs.evil.example") == 403


@pytest.mark.parametrize("row", ROWS)
async def test_pages_of_other_sites_change_nothing(row: Row, call: Caller) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
    ):
        status = await call(row, "admin", **headers)
        assert (status == 403) is (row.method != "GET")


@pytest.mark.parametrize("row", ROWS)
async def test_a_read_only_server_changes_nothing(row: Row, read_only: Caller) -> None:
    assert await read_only(row, "admin") == (403 if row.changes else row.ok)
