"""Who gets in, and who does not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from forge_jobs import EnqueueRequest
from forge_jobs.api import ApiConfig, Identity, Role, create_app
from forge_jobs.api.attempts import Attempts
from forge_jobs.api.tokens import Tokens
from forge_jobs.config import StoreConfig
from forge_jobs.storage.error import ConfigError, ReadOnly
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage

from .stage import TOKENS, caller, furnish, guarded, local, problem, token_file

V1 = "/api/v1"
ANY_STORE = pytest.mark.parametrize("url", ["memory"], indirect=True)


@ANY_STORE
@pytest.mark.parametrize(
    "authorization",
    ["Bearer ", "Bearer wrong", "Basic YTpi", b"Bearer \xe9", f"bearer{TOKENS['admin']}", f"Token {TOKENS['admin']}"],
)
async def test_a_wrong_token_does_not_get_in(storage: Storage, tmp_path: Path, authorization: str | bytes) -> None:
    async with caller(guarded(storage, tmp_path)) as client:
        raw = authorization if isinstance(authorization, bytes) else authorization.encode()
        response = await client.get(f"{V1}/overview", headers=[(b"authorization", raw)])
    assert (response.status_code, problem(response)["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")


@ANY_STORE
async def test_a_token_in_the_url_and_forwarded_headers_do_not_get_in(storage: Storage, tmp_path: Path) -> None:
    async with caller(guarded(storage, tmp_path)) as client:
        assert (await client.get(f"{V1}/overview?token={TOKENS['admin']}")).status_code == 401
        for name in ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded"):
            assert (await client.get(f"{V1}/overview", headers={name: "127.0.0.1"})).status_code == 401


@ANY_STORE
async def test_guesses_are_few(storage: Storage, tmp_path: Path) -> None:
    app = guarded(storage, tmp_path)
    async with caller(app) as client:
        for _ in range(5):
            assert (await client.post(f"{V1}/login", json={"token": "x" * 30}, headers=SAME)).status_code == 401
        refused = await client.post(f"{V1}/login", json={"token": TOKENS["read"]}, headers=SAME)
    assert (refused.status_code, problem(refused)["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 61
    transport = httpx2.ASGITransport(app=app, client=("192.0.2.8", 1))  # others are not held up
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as other:
        assert (await other.post(f"{V1}/login", json={"token": TOKENS["read"]}, headers=SAME)).status_code == 204


SAME = {"Sec-Fetch-Site": "same-origin"}


def test_failures_are_forgotten_after_a_minute() -> None:
    now = 0.0
    attempts = Attempts(clock=lambda: now)
    for _ in range(5):
        attempts.failed("a")
    attempts.check("b")
    with pytest.raises(Exception, match="5 failed tries"):
        attempts.check("a")
    now = 60.0
    attempts.check("a")


@ANY_STORE
async def test_a_login_is_a_cookie_that_scripts_and_other_sites_do_not_have(storage: Storage, tmp_path: Path) -> None:
    async with caller(guarded(storage, tmp_path)) as client:
        response = await client.post(f"{V1}/login", json={"token": TOKENS["operate"]}, headers=SAME)
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie
        assert TOKENS["operate"] not in cookie
        assert (await client.get(f"{V1}/me")).json()["role"] == "operate"
        assert (await client.post(f"{V1}/queues", json={"name": "q"}, headers=SAME)).status_code == 403
        bare = await client.post(f"{V1}/jobs", json={"kind": "k"})
        assert problem(bare)["code"] == "cross_origin"  # a cookie alone does not show who sent it
        assert (await client.post(f"{V1}/logout", headers=SAME)).status_code == 204
        client.cookies.set("forge_session", cookie.partition("=")[2].partition(";")[0])
        assert (await client.get(f"{V1}/me")).status_code == 401


@ANY_STORE
async def test_the_cookie_is_secure_behind_a_trusted_proxy_with_tls(storage: Storage, tmp_path: Path) -> None:
    headers = {**SAME, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9, 198.51.100.1"}
    for trusted in (True, False):
        async with caller(guarded(storage, tmp_path, trusted_proxy=trusted)) as client:
            response = await client.post(f"{V1}/login", json={"token": TOKENS["operate"]}, headers=headers)
            assert ("Secure" in response.headers["set-cookie"]) is trusted
            own = {**headers, "Authorization": f"Bearer {TOKENS['operate']}"}
            assert (await client.post(f"{V1}/jobs", json={"kind": "k"}, headers=own)).status_code == 201
        address = (await storage.audit.list(limit=1))[0].actor.address
        assert address == ("198.51.100.1" if trusted else "192.0.2.7")


@ANY_STORE
async def test_the_file_is_read_again_when_it_changes(storage: Storage, tmp_path: Path) -> None:
    app = guarded(storage, tmp_path)
    async with caller(app, "read") as client:
        assert (await client.get(f"{V1}/me")).status_code == 200
        path = tmp_path / "tokens.json"
        entries = json.loads(path.read_text())["tokens"]
        path.write_text(json.dumps({"tokens": [one for one in entries if one["name"] != "read"]}))
        assert (await client.get(f"{V1}/me")).status_code == 401


@ANY_STORE
async def test_a_token_ends_when_it_says(storage: Storage, tmp_path: Path) -> None:
    token = "a-token-that-has-expired-already"
    path = tmp_path / "t.json"
    entry = {"name": "old", "sha256": hashlib.sha256(token.encode()).hexdigest(), "role": "admin"}
    path.write_text(json.dumps({"tokens": [{**entry, "expires_at": "2020-01-01T00:00:00Z"}]}))
    path.chmod(0o600)
    async with caller(create_app(storage, ApiConfig(tokens=Tokens(path)))) as client:
        response = await client.get(f"{V1}/me", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 401


GOOD = {"name": "a", "sha256": "0" * 64, "role": "read"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("not json", "not JSON"),
        ({"tokens": []}, "no token"),
        ({"token": [GOOD]}, "not of the form"),
        ({"tokens": [{**GOOD, "role": "root"}]}, "token 1: role 'root' must be one of read, operate, admin"),
        ({"tokens": [GOOD, {**GOOD, "sha256": "short"}]}, "token 2: sha256"),
        ({"tokens": [{**GOOD, "queue": "a"}]}, "unknown key 'queue'"),
        ({"tokens": [{**GOOD, "queues": []}]}, "queues must be"),
        ({"tokens": [{**GOOD, "expires_at": "2030-01-01"}]}, "expires_at"),
        ({"tokens": [{**GOOD, "expires_at": 7}]}, "expires_at"),
    ],
)
def test_a_bad_token_file_is_refused_by_entry(tmp_path: Path, document: Any, said: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=said):
        Tokens(path)


def test_a_file_that_others_can_read_and_a_short_secret_are_refused(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Tokens(path)
    with pytest.raises(ConfigError, match="22 are needed"):
        Tokens(secret="hunter2")


async def test_a_token_of_some_queues_sees_and_touches_nothing_else(storage: Storage, tmp_path: Path) -> None:
    made = await furnish(storage)
    async with caller(guarded(storage, tmp_path), "limited") as client:
        listed = (await client.get(f"{V1}/jobs")).json()
        assert {job["queue"] for job in listed["items"]} == {"mail"} and listed["total"] == 2
        assert (await client.get(f"{V1}/jobs?queue=other")).json()["total"] == 0
        assert [queue["name"] for queue in (await client.get(f"{V1}/queues")).json()["items"]] == ["mail"]
        assert (await client.get(f"{V1}/overview")).json()["counts"]["pending"] == 1
        assert "other" not in {check["queue"] for check in (await client.get(f"{V1}/doctor")).json()["checks"]}
        for path in (
            f"jobs/{made.other}",
            f"jobs/{made.other}/payload",
            f"jobs/{made.other}/events",
            "queues/other",
            "series/queue?queue=other",
        ):
            assert (await client.get(f"{V1}/{path}")).status_code == 404
        hidden: list[tuple[str, str, Any]] = [
            ("DELETE", f"jobs/{made.other}", None),
            ("POST", f"jobs/{made.other}/cancel", None),
            ("PATCH", "queues/other", {"max_workers": 0}),
            ("POST", "queues/other/pause", None),
        ]
        for method, path, body in hidden:
            assert (await client.request(method, f"{V1}/{path}", json=body)).status_code == 404
        forbidden: list[tuple[str, str, Any]] = [
            ("POST", "jobs", {"kind": "k", "queue": "other"}),
            ("POST", "jobs", {"kind": "k"}),
            ("POST", "jobs/bulk", {"jobs": [{"kind": "k", "queue": "mail"}, {"kind": "k", "queue": "other"}]}),
            ("PATCH", f"jobs/{made.job}", {"queue": "other"}),
            ("POST", "schedules", {"name": "s", "kind": "k", "expr": "@daily", "queue": "other"}),
            ("PATCH", "schedules/nightly", {"queue": "other"}),
            ("POST", "rate-limits/gh/drain", None),
        ]
        for method, path, body in forbidden:
            assert (await client.request(method, f"{V1}/{path}", json=body)).status_code == 403
        everything = {"action": "cancel", "filter": {}, "expected_count": 2, "all": True}
        assert (await client.post(f"{V1}/jobs/actions", json=everything)).status_code == 202
        by_id = {"action": "cancel", "ids": [made.other], "expected_count": 1}
        assert (await client.post(f"{V1}/jobs/actions", json=by_id)).status_code == 202
    other = await storage.jobs.get(made.other)  # type: ignore[arg-type]
    assert other is not None and other.row.status == "pending"


async def test_a_read_only_store_changes_nothing(url: str, tmp_path: Path) -> None:
    async with open_storage(url) as storage:
        made = await furnish(storage)
    async with open_storage(url, config=StoreConfig(read_only=True)) as storage:
        with pytest.raises(ReadOnly):
            await storage.jobs.enqueue(EnqueueRequest("k", queue="q"))
        with pytest.raises(ReadOnly):
            await storage.jobs.cancel(made.job)  # type: ignore[arg-type]
        async with local(create_app(storage)) as client:  # even an app that nobody told
            assert (await client.get(f"{V1}/overview")).status_code == 200
            refused = await client.post(f"{V1}/jobs", json={"kind": "k"})
            assert (refused.status_code, problem(refused)["code"]) == (403, "read_only")
            preview = {"action": "cancel", "filter": {"queue": ["mail"]}}
            assert (await client.post(f"{V1}/jobs/actions/preview", json=preview)).json()["count"] == 2


@ANY_STORE
async def test_an_application_says_itself_who_calls(storage: Storage) -> None:
    async def authenticate(connection: Any) -> Identity | None:
        name = connection.headers.get("x-user")
        return None if name is None else Identity(name=name, role=Role.OPERATE)

    async with caller(create_app(storage, ApiConfig(authenticate=authenticate)), headers=SAME) as client:
        assert (await client.get(f"{V1}/me")).status_code == 401
        assert (await client.get(f"{V1}/me", headers={"X-User": "ann"})).json()["name"] == "ann"
        await client.post(f"{V1}/jobs", json={"kind": "k"}, headers={"X-User": "ann"})
        assert (await client.post(f"{V1}/queues", json={"name": "q"}, headers={"X-User": "ann"})).status_code == 403
    assert (await storage.audit.list(limit=1))[0].actor.name == "ann"


@ANY_STORE
async def test_it_can_be_mounted_under_a_prefix(storage: Storage) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    outer = Starlette(routes=[Mount("/jobs", app=create_app(storage))])
    transport = httpx2.ASGITransport(app=outer)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=SAME) as client:
        made = await client.post(f"/jobs{V1}/jobs", json={"kind": "k"})
        assert made.headers["location"].startswith(f"/jobs{V1}/jobs/")
        assert (await client.get(made.headers["location"])).status_code == 200
        assert (await client.get("/jobs/livez")).status_code == 200
        crossed = await client.post(f"/jobs{V1}/jobs", json={"kind": "k"}, headers={"Sec-Fetch-Site": "cross-site"})
        assert crossed.status_code == 403


@ANY_STORE
@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        ("localhost", "http://localhost", True),
        ("localhost:8787", "http://localhost:8787", True),
        ("LOCALHOST", "http://localhost", True),
        ("[::1]:8787", "http://[::1]:8787", True),
        ("localhost:8787", "http://localhost", False),
        ("localhost", "http://localhost:8787", False),
        ("localhost", "http://localhost.evil.example", False),
        ("localhost", "null", False),
        ("localhost", "file://", False),
        ("localhost", "http://evil@localhost:x", False),
    ],
)
async def test_origin_and_host_must_agree(storage: Storage, host: str, origin: str, passes: bool) -> None:
    async with caller(create_app(storage)) as client:
        response = await client.post(f"{V1}/jobs", json={"kind": "k"}, headers={"Host": host, "Origin": origin})
    assert response.status_code == (201 if passes else 403)


@ANY_STORE
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9", 200),
        ("127.0.0.1", 200),
        ("jobs.example.org", 200),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:8000@evil.example", 400),
        ("", 400),
        ("a b", 400),
    ],
)
async def test_the_host_must_be_one_of_ours(storage: Storage, host: str, status: int) -> None:
    async with caller(create_app(storage, ApiConfig(hosts=("Jobs.example.org",)))) as client:
        assert (await client.get(f"{V1}/me", headers={"Host": host})).status_code == status


@ANY_STORE
async def test_head_and_options_are_answered_and_cors_is_not(storage: Storage) -> None:
    async with caller(create_app(storage)) as client:
        head = await client.head(f"{V1}/me")
        assert (head.status_code, head.content) == (200, b"")
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        options = await client.options(f"{V1}/jobs", headers=asked)
        assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
        assert not [name for name in options.headers if name.startswith("access-control")]
        refused = await client.get(f"{V1}/jobs/actions")
        assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, POST")


@ANY_STORE
async def test_a_fault_is_told_without_its_words(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: object, **options: object) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(storage.jobs, "list_jobs", fail)
    async with local(create_app(storage)) as client:
        response = await client.get(f"{V1}/jobs")
    assert (response.status_code, problem(response)["code"]) == (500, "internal")
    assert "42" not in response.text
