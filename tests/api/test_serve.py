"""`forge-jobs serve` as a process: where it listens, whom it lets in, and what a bad client meets."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from .live import Live
from .stage import TOKENS, token_file

POST = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\nContent-Type: application/json\r\n"
PROGRAM = Path(sys.executable).with_name("forge-jobs")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Live(f"sqlite:///{tmp_path_factory.mktemp('serve')}/jobs.db") as running:
        yield running


def said(live: Live, raw: bytes, *, patience_s: float = 5) -> bytes:
    """What the server answers to these bytes: one whole answer, or what it says until it closes or is silent."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=patience_s) as connection:
        connection.sendall(raw)
        answer = b""
        with contextlib.suppress(TimeoutError):
            while not _is_whole(answer) and (part := connection.recv(65_536)):
                answer += part
        return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"GET /api/v1/overview HTTP/1.1\r\nHost: 127.0.0.1:8000@evil.example\r\n\r\n", 400),
        (b"GET /api/v1/overview HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", 403),
        (b"GET /api/v1/overview HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400),
        (b"GET /api/v1/overview HTTP/1.1\r\n\r\n", 400),
        (b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\nContent-Length: 5\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\nContent-Type: application/json\r\n"
         b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (b"GET /api/v1/overview?" + b"a=1&" * 5_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: none\r\n\r\n", 405),
        (b"GET /api/v1/overview HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /..%5c..%5cetc%5cpasswd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ],
)  # fmt: skip
def test_odd_requests_are_refused(live: Live, raw: bytes, expected: int) -> None:
    answer = said(live, raw)
    assert status(answer) == expected
    assert b"root:" not in answer and b"Traceback" not in answer
    assert live.alive


def test_a_body_too_large_is_refused_without_being_read(live: Live) -> None:
    before = _rss(live.pid)
    assert status(said(live, POST + b"Content-Length: 10485760\r\n\r\n{")) == 413
    assert _rss(live.pid) - before < 5 * 1024 * 1024


@pytest.mark.slow
def test_a_client_that_stops_sending_is_hung_up_on(live: Live) -> None:
    began = time.monotonic()
    assert said(live, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", patience_s=15) == b""
    assert time.monotonic() - began < 12
    answer = said(live, POST + b"Content-Length: 100\r\n\r\n{", patience_s=35)
    assert status(answer) == 408
    assert time.monotonic() - began < 50


def serve(*options: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
    return subprocess.run(
        [PROGRAM, "--database", f"sqlite:///{folder}/jobs.db", "serve", "--port", "0", *options],
        capture_output=True, text=True, env={**own, **environment}, timeout=20, cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_beyond_this_machine_it_asks_for_a_token(tmp_path: Path, host: str) -> None:
    refused = serve("--host", host, folder=tmp_path)
    assert refused.returncode == 2
    assert "nobody would need a token" in refused.stderr and "--token-file" in refused.stderr
    assert not (tmp_path / "jobs.db").exists()


def test_bad_options_are_refused_before_a_store_is_made(tmp_path: Path) -> None:
    path = token_file(tmp_path)
    path.chmod(0o640)
    for options, environment, words in (
        (("--token-file", str(path)), {}, "chmod 600"),
        (("--token-file", str(tmp_path / "none")), {}, "none"),
        ((), {"FORGE_API_TOKEN": "short"}, "22 are needed"),
        (("--prefix", "jobs/"), {}, "--prefix"),
        (("--read-only", "--workers", "a:b"), {}, "--workers"),
    ):
        refused = serve(*options, folder=tmp_path, **environment)
        assert refused.returncode == 2 and words in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (tmp_path / "jobs.db").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path, live: Live) -> None:
    refused = serve("--port", str(live.port), folder=tmp_path)
    assert refused.returncode == 2 and f"port {live.port}" in refused.stderr


def test_beyond_this_machine_a_token_is_enough(tmp_path: Path) -> None:
    secret = TOKENS["admin"]
    with Live(f"sqlite:///{tmp_path}/jobs.db", "--host", "0.0.0.0", environment={"FORGE_API_TOKEN": secret}) as live:
        base = f"http://127.0.0.1:{live.port}"
        assert httpx2.get(f"{base}/api/v1/me").status_code == 401
        assert httpx2.get(f"{base}/metrics").status_code == 401
        assert httpx2.get(f"{base}/livez").status_code == 200
        told = httpx2.get(f"{base}/readyz").json()
        assert told == {"status": "ok"}
        more = httpx2.get(f"{base}/readyz", headers={"Authorization": f"Bearer {secret}"}).json()
        assert more == {"status": "ok", "store": "ok", "problems": [], "heartbeat": None, "loops": {}}
        me = httpx2.get(f"{base}/api/v1/me", headers={"Authorization": f"Bearer {secret}"})
        assert (me.json()["name"], me.json()["role"]) == ("token", "admin")


def test_it_listens_on_a_socket_for_the_group(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with Live(f"sqlite:///{tmp_path}/jobs.db", "--socket", str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/api/v1/me").json()["role"] == "admin"
    assert not path.exists()


def test_it_answers_below_a_prefix(tmp_path: Path) -> None:
    with Live(f"sqlite:///{tmp_path}/jobs.db", "--prefix", "/ops/jobs") as live:
        assert httpx2.get(f"{live.base}/api/v1/me").status_code == 200
        assert httpx2.get(f"http://127.0.0.1:{live.port}/api/v1/me").status_code == 404


def test_read_only_changes_nothing(tmp_path: Path) -> None:
    with Live(f"sqlite:///{tmp_path}/jobs.db", "--read-only") as live:
        me = httpx2.get(f"{live.base}/api/v1/me").json()
        assert me["read_only"] is True
        refused = httpx2.post(f"{live.base}/api/v1/jobs", json={"kind": "k"}, headers={"Sec-Fetch-Site": "none"})
        assert (refused.status_code, refused.json()["code"]) == (403, "read_only")


def test_it_runs_jobs_too_and_a_worker_can_be_quieted(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from forge_jobs import HandlerRegistry\nhandlers = HandlerRegistry()\n\n\n"
        "@handlers.handler('noop')\nasync def noop(ctx, payload):\n    return None\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "FORGE_HEARTBEAT_S": "0.1", "FORGE_STALE_S": "30"}
    with Live(f"sqlite:///{tmp_path}/jobs.db", "--workers", "app:handlers", environment=environment) as live:
        client = httpx2.Client(base_url=f"{live.base}/api/v1", headers={"Sec-Fetch-Site": "none"})

        def job_is(id: str, wanted: str) -> bool:
            return bool(client.get(f"/jobs/{id}").json()["status"] == wanted)

        with client:
            one = client.post("/jobs", json={"kind": "noop"}).json()["id"]
            until(lambda: job_is(one, "done"))
            worker = next(w for w in client.get("/workers").json()["items"] if w["kinds"] == ["noop"])
            assert client.post(f"/workers/{worker['host_id']}/quiet").status_code == 200
            until(lambda: client.get(f"/workers/{worker['host_id']}").json()["quiet"])
            two = client.post("/jobs", json={"kind": "noop"}).json()["id"]
            assert httpx2.get(f"{live.base}/readyz").status_code == 200
            time.sleep(0.5)  # long enough for a claim, which is what must not come
            assert job_is(two, "pending")
            client.post(f"/workers/{worker['host_id']}/resume")
            until(lambda: job_is(two, "done"))


CHILD_APP: Final = """
import os
from forge_jobs import Dead, HandlerRegistry

handlers = HandlerRegistry()

@handlers.handler("parent", executor="async")
async def parent(ctx):
    return Dead(str(os.getpid()))

@handlers.handler("where")
def where(ctx):
    return Dead(str(os.getpid()))
"""


def test_its_workers_run_handlers_in_children_where_their_queue_says(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(CHILD_APP)
    environment = {"PYTHONPATH": str(tmp_path), "FORGE_EXECUTORS": "default=process"}
    with Live(f"sqlite:///{tmp_path}/jobs.db", "--workers", "app:handlers", environment=environment) as live:
        client = httpx2.Client(base_url=f"{live.base}/api/v1", headers={"Sec-Fetch-Site": "none"})
        with client:
            ids = [client.post("/jobs", json={"kind": kind}).json()["id"] for kind in ("parent", "where")]
            for id in ids:
                until(lambda id=id: client.get(f"/jobs/{id}").json()["status"] == "dead")
            parent, child = (client.get(f"/jobs/{id}").json()["last_error"] for id in ids)
        assert parent != child
        assert Path(f"/proc/{parent}").exists()
        assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[2] == child  # a group of its own


def until(condition: object) -> None:
    """Wait for a condition, at most ten seconds."""
    assert callable(condition)
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true")


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
