"""The examples for FastAPI and Flask, started for real: a request makes a job, and the job is done in the store."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from forge_jobs import SyncQueue
from forge_jobs.integrations.fastapi import Jobs
from forge_jobs.testing.postgres import Server
from forge_jobs.testing.throwaway import reserved_port

from .server import running, site


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The database of the shop."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shop.db'}"
    server: Server = request.getfixturevalue("server")
    return server.new_database()


def test_fastapi_runs_jobs_in_the_web_process(url: str, tmp_path: Path) -> None:
    serve = ("uvicorn", "fastapi_shop:app", "--port")
    with (
        reserved_port() as port,
        SyncQueue(url) as queue,
        site(*serve, str(port), port=port, folder=tmp_path, DATABASE_URL=url) as shop,
    ):
        assert shop.request("GET", "/healthz") == (200, '{"working":true}')
        job = shop.job("POST", "/orders?number=7")
        assert queue.wait(job, timeout=20).row.status == "done"
        assert shop.request("GET", "/orders/7") == (200, "order 7, attempt 1\n")
        assert shop.request("GET", "/orders/8")[0] == 404
        status, listed = shop.request("GET", "/ops/api/v1/jobs")
        assert (status, [row["id"] for row in json.loads(listed)["items"]]) == (200, [job])
        assert "<title>forge-jobs</title>" in shop.request("GET", "/ops/")[1]


async def test_a_dashboard_serves_only_while_its_application_runs(tmp_path: Path) -> None:
    jobs = Jobs(f"sqlite:///{tmp_path / 'shop.db'}", slots=0)
    transport = httpx2.ASGITransport(app=jobs.dashboard())
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/livez")).status_code == 503
        for _ in range(2):
            async with jobs:
                assert (await client.get("/api/v1/overview")).status_code == 200
            assert (await client.get("/api/v1/overview")).status_code == 503


def test_flask_enqueues_and_a_worker_of_its_own_runs_the_jobs(url: str, tmp_path: Path) -> None:
    serve = ("flask", "--app", "flask_shop", "run", "--port")
    with (
        reserved_port() as port,
        SyncQueue(url) as queue,
        site(*serve, str(port), port=port, folder=tmp_path, DATABASE_URL=url) as shop,
    ):
        job = shop.job("POST", "/orders/7")
        assert shop.job("POST", "/orders/7") == job
        assert json.loads(shop.request("GET", f"/jobs/{job}")[1])["status"] == "pending"
        with running("forge_jobs", "worker", "flask_shop:handlers", "--database", url, folder=tmp_path):
            assert queue.wait(job, timeout=20).row.status == "done"
        assert json.loads(shop.request("GET", f"/jobs/{job}")[1]) == {"status": "done", "attempts": 1, "error": None}
        assert (tmp_path / "receipt-7.txt").read_text() == "order 7, attempt 1\n"
        assert shop.request("GET", "/jobs/01JH3V7M8Q2X4N5P6R7S8T9V00")[0] == 404
