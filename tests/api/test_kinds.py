"""What code says of its kinds, seen by a server that has none of that code: schemas, workers, and what is hidden."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, JobCtx, QueueRuntime
from forge_jobs.api import create_app
from forge_jobs.redact import HIDDEN, HIDDEN_ERROR, HIDDEN_PAYLOAD
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.rate_limit import RateLimitDeclaration
from forge_jobs.storage.types.schedule import ScheduleDeclaration
from forge_jobs.testing.cluster import until

from .stage import caller, guarded, local, problem

V1 = "/api/v1"
SECRETS = ("DE89370400440532013000", "4929123456781234")
"""What nobody may get to see: an account of a kind that hides some keys, and one of a kind that hides all."""


@dataclass
class Payment:
    iban: str
    cents: int = 1


def code(*, careful: bool = True) -> HandlerRegistry:
    """The code of a worker; without care, as it was before somebody thought of secrets."""
    handlers = HandlerRegistry()
    handlers.limit("bank", capacity=10, refill_per_s=10)

    @handlers.handler("pay", rate_limit="bank", timeout=30, max_attempts=1, redact=["iban"] if careful else [])
    async def pay(ctx: JobCtx, payment: Payment) -> None:
        """Pay somebody.

        Not part of what is told.
        """
        ctx.log.info("paying iban=%s", payment.iban)
        ctx.progress(1, 2, f"iban={payment.iban}")
        raise ValueError(f"no account, iban={payment.iban}")

    @handlers.handler("card", executor="thread", max_attempts=1, payload_view="hidden" if careful else "redacted")
    def card(payload: dict[str, Any]) -> None:
        raise RuntimeError(f"the number {payload['number']}\nis not known: {payload['number']}")

    return handlers


async def run_all(storage: Storage, handlers: HandlerRegistry) -> None:
    """A job of each kind to its end, by a worker that is gone afterwards."""
    runtime = QueueRuntime(storage, handlers, queues=["money"], name="bookkeeper")
    settled: list[object] = []
    runtime.on_settled = lambda asked, answer: settled.append(answer)
    await runtime.start()
    await storage.jobs.enqueue(EnqueueRequest("pay", {"iban": SECRETS[0]}, queue="money"))
    await storage.jobs.enqueue(EnqueueRequest("card", {"number": SECRETS[1]}, queue="money"))
    await until(lambda: len(settled) == 2)
    await runtime.stop()
    await storage.events.flush()


@pytest.fixture
async def client(url: str, storage: Storage) -> AsyncIterator[httpx2.AsyncClient]:
    """A server of its own over the same store."""
    async with open_storage(url) as serving, local(create_app(serving)) as client:
        yield client


async def everything(client: httpx2.AsyncClient) -> dict[str, str]:
    """All that the API shows of jobs, by path."""
    ids = [job["id"] for job in (await client.get(f"{V1}/jobs")).json()["items"]]
    paths = [
        *("jobs", "jobs?order=completed", "jobs/groups", "schedules", "schedules/payday", "audit", "kinds", "overview"),
        *(f"jobs/{id}{part}" for id in ids for part in ("", "/events", "/log", "/explain")),
        *("kinds/pay", "kinds/card", "timeline", "workers", "queues/money/explain"),
    ]
    shown = {path: (await client.get(f"{V1}/{path}")).text for path in paths}
    preview = {"action": "retry", "filter": {"status": ["dead"]}}
    shown["preview"] = (await client.post(f"{V1}/jobs/actions/preview", json=preview)).text
    return shown


async def test_what_a_worker_hides_is_hidden_by_a_server_without_its_code(
    storage: Storage, client: httpx2.AsyncClient
) -> None:
    for kind, payload in (("pay", {"iban": SECRETS[0]}), ("card", {"number": SECRETS[1]})):
        name = "payday" if kind == "pay" else kind
        await storage.schedules.add(ScheduleDeclaration(name, kind, "0 3 * * *", payload=payload, queue="money"))
    await run_all(storage, code())
    for path, text in (await everything(client)).items():
        assert not any(secret in text for secret in SECRETS), path
    jobs = {job["kind"]: job for job in (await client.get(f"{V1}/jobs")).json()["items"]}
    assert json.loads(jobs["pay"]["payload_preview"]) == {"iban": HIDDEN}
    assert jobs["pay"]["last_error"] == f"no account, iban={HIDDEN}"
    assert jobs["card"]["payload_preview"] == json.dumps(HIDDEN_PAYLOAD)
    assert jobs["card"]["last_error"] == HIDDEN_ERROR
    shown = {kind: (await client.get(f"{V1}/jobs/{job['id']}")).json() for kind, job in jobs.items()}
    assert (shown["pay"]["payload_hidden"], shown["card"]["payload_hidden"]) == (False, True)
    assert [entry["message"] for entry in shown["card"]["history"]] == [HIDDEN_ERROR]
    places = shown["card"]["traceback"].splitlines()
    assert places[0].startswith("Traceback") and places[-1] == f"RuntimeError: {HIDDEN_ERROR}"
    assert any("in card" in line for line in places)
    log = (await client.get(f"{V1}/jobs/{jobs['pay']['id']}/log")).json()["items"]
    assert [line["message"] for line in log] == [f"paying iban={HIDDEN}"]


async def test_older_code_beside_newer_does_not_bring_secrets_back(
    storage: Storage, client: httpx2.AsyncClient
) -> None:
    await run_all(storage, code())
    older = QueueRuntime(storage, code(careful=False), queues=["money"])
    await older.start()
    await older.stop()
    for path, text in (await everything(client)).items():
        assert not any(secret in text for secret in SECRETS), path
    assert (await client.get(f"{V1}/kinds/card")).json()["hides_more_than_code"] is True
    after = (await client.post(f"{V1}/kinds/card/reset")).json()
    assert (after["payload_view"], after["hides_more_than_code"]) == ("redacted", False)
    shown = "".join((await everything(client)).values())
    assert (SECRETS[0] in shown, SECRETS[1] in shown) == (False, True)
    acts = (await client.get(f"{V1}/audit")).json()["items"]
    assert (acts[0]["action"], acts[0]["target"], acts[0]["surface"]) == ("kind.reset", "card", "http")


async def test_a_kind_is_shown_with_its_schema_its_options_its_jobs_and_its_workers(
    storage: Storage, client: httpx2.AsyncClient
) -> None:
    handlers = code()
    runtime = QueueRuntime(storage, handlers, queues=["money"], name="bookkeeper")
    await runtime.start()
    await storage.queues.pause("money")
    await storage.jobs.enqueue(EnqueueRequest("pay", {"iban": "x"}, queue="money"))
    await storage.jobs.enqueue(EnqueueRequest("unknown", queue="money"))
    try:
        listed = {one["kind"]: one for one in (await client.get(f"{V1}/kinds")).json()["items"]}
        assert list(listed) == ["card", "pay", "unknown"]
        served = {kind: (one["declared"], one["served"], one["waiting"]) for kind, one in listed.items()}
        assert served == {"card": (True, True, 0), "pay": (True, True, 1), "unknown": (False, False, 1)}
        assert (listed["card"]["executor"], listed["card"]["payload_hidden"]) == ("thread", True)
        assert (listed["pay"]["rate_limit"], listed["pay"]["description"]) == ("bank", "Pay somebody.")
        one = (await client.get(f"{V1}/kinds/pay")).json()
        assert one["declaration"]["schema"] == handlers.schema("pay")
        options = {key: one["declaration"][key] for key in ("timeout_s", "max_attempts", "cost", "redact")}
        assert options == {"timeout_s": 30, "max_attempts": 1, "cost": 1, "redact": ["iban"]}
        assert one["workers"] == [{"host_id": runtime.host_id, "worker": "bookkeeper", "queues": ["money"]}]
        assert (one["declared_by"], one["declared_by_label"]) == (runtime.host_id, "bookkeeper")
        unknown = (await client.get(f"{V1}/kinds/unknown")).json()
        assert (unknown["declaration"], unknown["redact"], unknown["declared_at"]) == (None, [], None)
        missing = await client.get(f"{V1}/kinds/none")
        assert (missing.status_code, problem(missing)["code"]) == (404, "not_found")
        assert (await client.post(f"{V1}/kinds/unknown/reset")).status_code == 404
    finally:
        await runtime.stop()
    gone = (await client.get(f"{V1}/kinds/pay")).json()
    assert (gone["served"], gone["workers"]) == (False, [])
    assert gone["declaration"] == one["declaration"]


async def test_a_limit_tells_who_takes_from_it_and_how_many_jobs_wait(
    storage: Storage, client: httpx2.AsyncClient
) -> None:
    handlers = code()

    @handlers.handler("team", rate_limit="chat:red")
    async def team(ctx: JobCtx) -> None: ...

    @handlers.handler("any", rate_limit=lambda payload: f"chat:{payload}")
    async def any_of_them(ctx: JobCtx) -> None: ...

    await storage.rate_limits.ensure(RateLimitDeclaration(scope="chat", capacity=1, refill_per_s=1, per_key=True))
    await storage.rate_limits.ensure(RateLimitDeclaration(scope="idle", capacity=1, refill_per_s=1))
    runtime = QueueRuntime(storage, handlers, queues=["money"])
    await runtime.start()
    await runtime.stop()
    await storage.jobs.enqueue_bulk([EnqueueRequest("pay", {"iban": "x"}, queue=queue) for queue in "aab"])
    await storage.jobs.enqueue(EnqueueRequest("team", queue="a", delay=3600))

    async def users() -> dict[str, tuple[list[str], int]]:
        items = (await client.get(f"{V1}/rate-limits")).json()["items"]
        return {one["scope"]: (one["kinds"], one["waiting"]) for one in items if ":" not in one["scope"]}

    assert await users() == {"bank": (["pay"], 3), "chat": (["team"], 1), "idle": ([], 0)}
    drained = (await client.post(f"{V1}/rate-limits/bank/drain")).json()
    assert (drained["kinds"], drained["waiting"]) == (["pay"], 3)


async def test_a_token_of_some_queues_sees_the_kinds_of_these(storage: Storage, tmp_path: Path) -> None:
    runtime = QueueRuntime(storage, code(), queues=["money"])
    await runtime.start()
    await storage.queues.pause("money")
    await storage.jobs.enqueue(EnqueueRequest("send", queue="mail"))
    await storage.jobs.enqueue(EnqueueRequest("pay", {"iban": "x"}, queue="money"))
    try:
        async with caller(guarded(storage, tmp_path), "limited") as client:
            assert [one["kind"] for one in (await client.get(f"{V1}/kinds")).json()["items"]] == ["send"]
            assert (await client.get(f"{V1}/kinds/pay")).status_code == 404
            (limit,) = (await client.get(f"{V1}/rate-limits")).json()["items"]
            assert (limit["scope"], limit["kinds"], limit["waiting"]) == ("bank", [], 0)
    finally:
        await runtime.stop()


async def test_a_kind_registered_while_a_worker_runs_is_told_of(storage: Storage, client: httpx2.AsyncClient) -> None:
    handlers = code()
    runtime = QueueRuntime(storage, handlers, queues=["money"])
    await runtime.start()
    try:

        @handlers.handler("later", payload_view="hidden")
        async def later(ctx: JobCtx) -> None: ...

        await until(lambda: runtime.env.declared_version == handlers.version)
        assert (await client.get(f"{V1}/kinds/later")).json()["payload_view"] == "hidden"
    finally:
        await runtime.stop()
