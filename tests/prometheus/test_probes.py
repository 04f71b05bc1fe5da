"""/livez, /readyz and /metrics beside workers at work: they tell of progress, and harm nobody."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
import pytest_asyncio

from forge_jobs import (
    ConfigError,
    EnqueueRequest,
    HandlerRegistry,
    QueueRuntime,
    RuntimeConfig,
    StoreConfig,
    open_storage,
)
from forge_jobs.cli.worker_http import Address, serving
from forge_jobs.probe import REQUESTS_AT_ONCE, Answer, ProbeServer
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.sqlite.turnstile import Turnstile
from forge_jobs.testing.cluster import until

from .scrape import Got, Scraped, get

QUICK = RuntimeConfig(heartbeat_s=0.1, stale_s=1.0, reaper_s=0.2, supervisor_s=0.05, poll_ms=20, shutdown_grace_s=0.3)


class Worker:
    """A runtime at work with its server."""

    def __init__(self, storage: Storage, database: Path) -> None:
        self.storage = storage
        self.database = database
        self.handlers = HandlerRegistry()
        self.runtime = QueueRuntime(storage, self.handlers, slots=2, config=QUICK)
        self.address = ("", 0)

    async def put(self, kind: str) -> None:
        await self.storage.jobs.enqueue(EnqueueRequest(kind, queue="default"))

    async def get(self, path: str) -> Got:
        return await asyncio.to_thread(get, self.address, path)


@pytest_asyncio.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db", config=StoreConfig(store_deadline_s=0.5)) as storage:
        made = Worker(storage, tmp_path / "jobs.db")

        @made.handlers.handler("block")
        async def block(payload: object) -> None:
            time.sleep(2)

        @made.handlers.handler("echo")
        async def echo(payload: object) -> None:
            pass

        await made.runtime.start()
        with serving(("127.0.0.1", 0), made.runtime, storage) as server:
            made.address = server.address
            yield made
        await made.runtime.stop(0)


class TestReadiness:
    async def test_a_worker_at_work_is_alive_and_ready(self, worker: Worker) -> None:
        assert (await worker.get("/livez")).json == {"status": "ok"}
        ready = await worker.get("/readyz")
        assert (ready.status, ready.json["status"], ready.json["problems"]) == (200, "ok", [])
        assert ready.json["heartbeat"]["age_s"] < QUICK.stale_s

    async def test_a_handler_that_blocks_the_loop_makes_it_unready_and_not_dead(self, worker: Worker) -> None:
        seen: list[tuple[int, int]] = []
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                seen.append((get(worker.address, "/livez").status, get(worker.address, "/readyz").status))
                over.wait(0.1)

        watching = threading.Thread(target=watch)
        watching.start()
        await worker.put("block")
        await asyncio.to_thread(lambda: None)
        await until(lambda: worker.runtime.report.finished == 1, within_s=10)
        over.set()
        watching.join()
        assert {live for live, _ in seen} == {200}
        assert {ready for _, ready in seen} == {200, 503}

        async def ready_again() -> bool:
            return (await worker.get("/readyz")).status == 200

        await until(ready_again)

    async def test_a_store_that_does_not_answer_makes_it_unready_until_it_does(self, worker: Worker) -> None:
        frozen = Turnstile(worker.database)
        frozen.enter()
        try:
            problems: list[str] = []
            for _ in range(200):
                found = await worker.get("/readyz")
                problems = found.json["problems"]
                if found.status == 503 and any("idle" in one for one in problems):
                    break
                await asyncio.sleep(0.02)
            assert any("heartbeat" in one for one in problems), problems
            assert any("has not asked for jobs of queue default" in one for one in problems), problems
            assert (await worker.get("/livez")).status == 200
        finally:
            frozen.leave()
            frozen.close()
        for _ in range(200):
            if (await worker.get("/readyz")).status == 200:
                return
            await asyncio.sleep(0.02)
        raise AssertionError((await worker.get("/readyz")).text)

    async def test_a_paused_queue_or_busy_slots_are_no_reason(self, worker: Worker) -> None:
        await worker.storage.queues.pause("default")
        await until(lambda: not worker.runtime.env.exchanger.lines["default"].idle_slots)
        await asyncio.sleep(QUICK.stale_s + 0.2)
        assert (await worker.get("/readyz")).status == 200

    async def test_one_that_shuts_down_is_not_ready(self, worker: Worker) -> None:
        worker.runtime.request_stop()
        found = await worker.get("/readyz")
        assert found.status == 503
        assert "it is shutting down" in found.json["problems"]


class TestMetrics:
    async def test_they_tell_what_the_worker_did(self, worker: Worker) -> None:
        await worker.put("echo")
        await until(lambda: worker.runtime.report.finished == 1)
        got = await worker.get("/metrics")
        assert got.type == "text/plain; version=0.0.4; charset=utf-8"
        found = Scraped(got.text)
        assert found.value("completed_total", queue="default", kind="echo") == 1
        assert found.value("slots_open", queue="default") == 2
        assert (found.value("claims_total", result="jobs") or 0) >= 1

    async def test_they_come_while_the_loop_is_blocked(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("forge_jobs.cli.worker_http.METRICS_WAIT_S", 0.2)
        await worker.get("/metrics")
        answers: list[Got] = []
        asking = threading.Timer(0.5, lambda: answers.append(get(worker.address, "/metrics")))
        asking.start()
        await worker.put("block")
        await until(lambda: worker.runtime.report.finished == 1, within_s=10)
        asking.join()
        assert answers[0].status == 200
        assert Scraped(answers[0].text).value("store_up") == 1


class TestServer:
    @pytest.fixture
    def server(self) -> Iterator[ProbeServer]:
        self.entered, self.go_on = threading.Semaphore(0), threading.Event()

        def slow() -> Answer:
            self.entered.release()
            assert self.go_on.wait(20)
            return Answer.of(200, {})

        def broken() -> Answer:
            raise ValueError("boom")

        running = ProbeServer("127.0.0.1", 0, {"/slow": slow, "/broken": broken, "/ok": lambda: Answer.of(200, {})})
        yield running
        self.go_on.set()
        running.close()

    def test_other_paths_and_methods_are_refused(self, server: ProbeServer) -> None:
        assert get(server.address, "/etc/passwd").status == 404
        assert get(server.address, "/ok?x=1").status == 200
        assert get(server.address, "/ok", "HEAD").text == ""
        for method in ("POST", "DELETE", "PUT"):
            assert get(server.address, "/ok", method).status == 501

    def test_a_fault_is_an_answer(self, server: ProbeServer) -> None:
        assert get(server.address, "/broken").status == 500

    def test_a_few_at_a_time_and_the_rest_is_hung_up_on(self, server: ProbeServer) -> None:
        asking = [threading.Thread(target=get, args=(server.address, "/slow")) for _ in range(REQUESTS_AT_ONCE)]
        for one in asking:
            one.start()
        for _ in asking:
            assert self.entered.acquire(timeout=10)
        with pytest.raises(OSError):
            get(server.address, "/ok")
        self.go_on.set()
        for one in asking:
            one.join()
        assert get(server.address, "/ok").status == 200

    def test_garbage_and_silence_cost_nothing(self, server: ProbeServer) -> None:
        with closing(socket.create_connection(server.address)) as silent:
            with closing(socket.create_connection(server.address)) as garbage:
                garbage.sendall(b"\x00\xff" * 100 + b"\r\n\r\n")
                assert garbage.recv(100)
            assert get(server.address, "/ok").status == 200
            silent.close()

    def test_a_port_that_is_taken_is_a_clear_error(self, server: ProbeServer) -> None:
        with pytest.raises(ConfigError, match=r"cannot listen at 127.0.0.1:\d+: Address already in use"):
            ProbeServer(*server.address, {})


class TestCommand:
    APP = """
from forge_jobs import HandlerRegistry
handlers = HandlerRegistry()
@handlers.handler("echo")
async def echo(payload): pass
"""

    def test_a_worker_process_serves_until_it_ends(self, tmp_path: Path) -> None:
        (tmp_path / "app.py").write_text(self.APP)
        process = subprocess.Popen(
            [sys.executable, "-m", "forge_jobs", "worker", "app:handlers", "--http", "0"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "FORGE_LOG_FORMAT": "text"},
        )  # fmt: skip
        try:
            assert process.stderr is not None
            port = 0
            for line in process.stderr:
                if found := re.search(r"http_listening.*port=(\d+)", line):
                    port = int(found[1])
                    break
            address = ("127.0.0.1", port)
            assert get(address, "/readyz").status == 200
            assert Scraped(get(address, "/metrics").text).value("slots_open", queue="default") == 10
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            with pytest.raises(OSError):
                get(address, "/livez")
        finally:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:", "::1:x", "", "-1"])
    def test_an_address_that_is_none_is_refused(self, address: str) -> None:
        with pytest.raises(click.BadParameter, match="is not HOST:PORT"):
            Address().convert(address, None, None)

    def test_addresses(self) -> None:
        given = {
            "9108": ("127.0.0.1", 9108),
            "0.0.0.0:1": ("0.0.0.0", 1),
            "[::1]:9": ("::1", 9),
            ":8": ("127.0.0.1", 8),
        }
        assert {text: Address().convert(text, None, None) for text in given} == given
