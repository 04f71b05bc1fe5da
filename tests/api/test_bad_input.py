"""Bad input is refused with the field and the reason, and adds no row; odd but legal input survives exactly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from forge_jobs import limits
from forge_jobs.api import create_app
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import JobFilter

from .stage import local, problem

JOBS = "/api/v1/jobs"
ANY_STORE = pytest.mark.parametrize("url", ["memory"], indirect=True)
"""Refused before the store is asked, so one backend will do."""


def job(payload: str = "{}", **more: Any) -> bytes:
    """The body of a job, with a payload and fields as JSON text or values."""
    fields = {"queue": '"q"', "kind": '"noop_echo"', "payload": payload}
    fields |= {name: json.dumps(value) for name, value in more.items()}
    return ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}").encode()


async def post(storage: Storage, body: bytes, path: str = JOBS, **headers: str) -> httpx2.Response:
    async with local(create_app(storage)) as client:
        return await client.post(path, content=body, headers={"Content-Type": "application/json", **headers})


REFUSED: list[tuple[bytes, str, str]] = [
    (b"", "body", "invalid_json"),
    (b"   \n", "body", "invalid_json"),
    (b"nul", "body", "invalid_json"),
    (job()[:-1], "body", "invalid_json"),
    (b"null", "body", "body_not_object"),
    (b"[1]", "body", "body_not_object"),
    (b'"text"', "body", "body_not_object"),
    (job("NaN"), "body", "invalid_json"),
    (job("-Infinity"), "body", "invalid_json"),
    (job("1e400"), "payload", "number_out_of_range"),
    (job("9" * 5_000), "body", "number_too_long"),
    (job("01"), "body", "invalid_json"),
    (job("+1"), "body", "invalid_json"),
    (job("[1,]"), "body", "invalid_json"),
    (job("{'a':1}"), "body", "invalid_json"),
    (b"\xef\xbb\xbf{}", "body", "invalid_json"),
    (job('"\xff"').decode("latin-1").encode("latin-1").replace(b"\xc3\xbf", b"\xff"), "body", "invalid_utf8"),
    (job('"a\tb"'), "body", "invalid_json"),
    (job() + b"{}", "body", "invalid_json"),
    (job("[" * 200_000 + "]" * 200_000), "body", "too_deep"),
    (job("[" * 101 + "]" * 101), "payload", "too_deep"),
    (job('{"a":1,"a":2}'), "body", "duplicate_key"),
    (b'{"kind":"a","kind":"b"}', "body", "duplicate_key"),
    (job(prioirty=5), "prioirty", "unknown_field"),
    (b'{"queue":"q","payload":{}}', "kind", "missing_field"),
    (job('"\\ud800"'), "payload", "invalid_unicode"),
    (job('{"\\udfff":1}'), "payload", "invalid_unicode"),
    (job(queue=True), "queue", "invalid_type"),
    (job(queue={"a": 1}), "queue", "invalid_type"),
    (job(queue="a,b"), "queue", "invalid_name"),
    (job(kind=""), "kind", "invalid_name"),
    (job(kind="x" * 129), "kind", "invalid_name"),
    (job(priority=1.5), "priority", "invalid_type"),
    (job(priority=True), "priority", "invalid_type"),
    (job(priority="5"), "priority", "invalid_type"),
    (job(priority=10**30), "priority", "out_of_range"),
    (job(priority=-(10**10)), "priority", "out_of_range"),
    (job(max_attempts=0), "max_attempts", "out_of_range"),
    (job(max_attempts=1_000_001), "max_attempts", "out_of_range"),
    (job(delay=-1), "delay", "out_of_range"),
    (job(delay=1e18), "delay", "out_of_range"),
    (job(delay="10m"), "delay", "invalid_type"),
    (job(run_at="2026-01-01T00:00:00"), "run_at", "naive_time"),
    (job(run_at="2026-02-30T00:00:00Z"), "run_at", "invalid_time"),
    (job(run_at="0000-01-01T00:00:00Z"), "run_at", "invalid_time"),
    (job(run_at="294277-01-01T00:00:00Z"), "run_at", "invalid_time"),
    (job(run_at="now()"), "run_at", "invalid_time"),
    (job(run_at=1e20), "run_at", "invalid_type"),
    (job(run_at="2026-06-30T23:59:60Z"), "run_at", "invalid_time"),
    (job(run_at="2026-06-30T23:59:00Z", delay=1), "delay", "conflicting_fields"),
    (job(dedupe_key=""), "dedupe_key", "out_of_range"),
    (job(tags="t"), "tags", "invalid_type"),
    (job(id="abc"), "id", "invalid_id"),
]


@pytest.mark.parametrize(
    ("body", "field", "reason"), REFUSED, ids=[f"{f}-{r}-{n}" for n, (_, f, r) in enumerate(REFUSED)]
)
async def test_a_bad_job_is_refused_by_field_and_reason(storage: Storage, body: bytes, field: str, reason: str) -> None:
    response = await post(storage, body)
    refusal = problem(response)
    assert (response.status_code, refusal["code"]) == (400, "validation")
    assert (refusal["field"], refusal["reason"]) == (field, reason)
    assert await storage.jobs.count(JobFilter()) == {}


EXACT = [
    "null", "[]", '""', '{"":1}', "[9223372036854775807,-9223372036854775808]",
    "[9223372036854775808,18446744073709551616,123456789012345678901234567890]", "[9007199254740993]",
    "[0.1,1e-320,1.7976931348623157e308,5e-324]", "[-0.0]", '[true,1,1.0,"1"]', '"\\u0000"', '{"a\\u0000b":1}',
    '"\\ud83d\\ude00"', '"\u202eevil\u2066"', '"e\u0301 \u00e9"', '"\\ufffe\\uffff"', '"<img src=x onerror=alert(1)>"',
    '"javascript:alert(1)"', '"\'; DROP TABLE jobs; --"', '"$(touch /tmp/pwn) `id` %s %n {0}"', '{"z":1,"a":2}',
]  # fmt: skip


@pytest.mark.parametrize("payload", EXACT)
async def test_a_legal_payload_survives_exactly(storage: Storage, payload: str) -> None:
    response = await post(storage, job(payload))
    assert response.status_code == 201
    detail = await storage.jobs.get(response.json()["id"])
    assert detail is not None
    kept, sent = detail.row.payload, json.loads(payload)
    assert json.dumps(kept) == json.dumps(sent)  # also the order of keys, the types and the sign of zero
    async with local(create_app(storage)) as client:
        shown = (await client.get(response.headers["location"])).json()
    assert json.dumps(json.loads(shown["payload"])) == json.dumps(sent)


async def test_a_payload_may_be_as_large_as_the_limit_and_no_larger(storage: Storage) -> None:
    largest = json.dumps("x" * (limits.PAYLOAD_MAX_BYTES - 2))
    assert (await post(storage, job(largest))).status_code == 201
    for body in (job(json.dumps("x" * limits.PAYLOAD_MAX_BYTES)), job(json.dumps("\u0001" * 300_000))):
        response = await post(storage, body)
        assert (response.status_code, problem(response)["reason"]) == (413, "payload_too_large")
    assert sum((await storage.jobs.count(JobFilter())).values()) == 1


async def test_a_body_too_large_is_refused_before_it_is_read(storage: Storage) -> None:
    read: list[bytes] = []

    async def body() -> Any:
        for part in (b"{", b"}"):
            read.append(part)
            yield part

    async with local(create_app(storage)) as client:
        headers = {"Content-Type": "application/json", "Content-Length": str(10**9)}
        response = await client.post(JOBS, content=body(), headers=headers)
    assert (response.status_code, problem(response)["code"], read) == (413, "payload_too_large", [])


async def test_a_chunked_body_is_counted(storage: Storage) -> None:
    async def body() -> Any:
        yield b'{"kind":"a","payload":"'
        while True:
            yield b"x" * 65_536

    async with local(create_app(storage)) as client:
        response = await client.post(JOBS, content=body(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413


@ANY_STORE
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
async def test_a_body_must_be_json(storage: Storage, headers: dict[str, str]) -> None:
    async with local(create_app(storage)) as client:
        response = await client.post(JOBS, content=job(), headers=headers)
    assert (response.status_code, problem(response)["code"]) == (415, "unsupported_media_type")


ASKED = [
    ("?limit=0", "limit", "out_of_range"),
    ("?limit=1000000000", "limit", "out_of_range"),
    ("?limit=99999999999999999999999999", "limit", "out_of_range"),
    ("?limit=-1", "limit", "out_of_range"),
    ("?limit=1e3", "limit", "invalid_type"),
    ("?limit=1_0", "limit", "invalid_type"),
    ("?limit=%D9%A1", "limit", "invalid_type"),
    ("?limit=", "limit", "invalid_type"),
    ("?limit=1&limit=2", "limit", "duplicate_parameter"),
    ("?bogus=done&bogus=dead", "bogus", "unknown_parameter"),
    ("?offset=-1", "offset", "unknown_parameter"),
    ("?order=id;DROP TABLE jobs", "order", "invalid_value"),
    ("?cursor=AAAA", "cursor", "invalid_cursor"),
    ("?cursor=%00", "cursor", "invalid_cursor"),
    ("?status=DROP", "status", "invalid_value"),
    ("?dead_reason=x", "dead_reason", "invalid_value"),
    ("?queue=a,b", "queue", "invalid_name"),
    ("?from=yesterday", "from", "invalid_time"),
    ("?to=2026-01-01T00:00:00", "to", "naive_time"),
    ("?search=%00", "search", "invalid"),
]


@ANY_STORE
@pytest.mark.parametrize(("query", "field", "reason"), ASKED)
async def test_a_bad_question_is_refused(storage: Storage, query: str, field: str, reason: str) -> None:
    async with local(create_app(storage)) as client:
        response = await client.get(JOBS + query)
    refusal = problem(response)
    assert (response.status_code, refusal["field"], refusal["reason"]) == (400, field, reason)


@ANY_STORE
@pytest.mark.parametrize("id", ["abc", "-1", "9" * 23, "1%20OR%201=1", "0x1", "%D9%A1", "%00", "%2e%2e", "a%2fb"])
async def test_what_is_no_id_is_not_found(storage: Storage, id: str) -> None:
    async with local(create_app(storage)) as client:
        assert problem(await client.get(f"{JOBS}/{id}"))["code"] == "not_found"


async def test_a_kind_is_never_more_than_a_word(storage: Storage) -> None:
    for kind in ("__import__", "builtins:eval"):
        assert (await post(storage, job('"os"', kind=kind))).status_code == 201


async def test_the_same_key_at_once_makes_one_job(storage: Storage) -> None:
    app = create_app(storage)
    async with local(app) as client:
        bodies = [job(dedupe_key="K")] * 50
        answers = await asyncio.gather(
            *(client.post(JOBS, content=body, headers={"Content-Type": "application/json"}) for body in bodies)
        )
    assert {answer.status_code for answer in answers} == {200, 201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.json()["outcome"] for answer in answers].count("enqueued") == 1


async def test_an_id_that_is_repeated_is_the_same_job_or_refused(storage: Storage) -> None:
    own = "01JH3V7M8Q2X4N5P6R7S8T9VWX"
    first, again = await post(storage, job("1", id=own)), await post(storage, job("1", id=own))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {"id": own, "outcome": "repeated", "status": None}
    other = await post(storage, job("2", id=own))
    assert (other.status_code, problem(other)["code"]) == (409, "id_reused")


async def test_a_bulk_is_all_or_nothing(storage: Storage) -> None:
    async with local(create_app(storage)) as client:
        bad = {"jobs": [{"kind": "a"}, {"kind": "a,b"}]}
        refused = await client.post(f"{JOBS}/bulk", json=bad)
        assert problem(refused)["detail"].startswith("job 1:")
        assert await storage.jobs.count(JobFilter()) == {}
        many = await client.post(f"{JOBS}/bulk", json={"jobs": [{"kind": "a"}] * 1_001})
        assert (many.status_code, problem(many)["field"]) == (400, "jobs")
        good = await client.post(f"{JOBS}/bulk", json={"jobs": [{"kind": "a", "queue": "q"}] * 1_000})
    assert [one["outcome"] for one in good.json()["outcomes"]] == ["enqueued"] * 1_000
    assert await storage.jobs.count(JobFilter()) == {"pending": 1_000}


async def test_an_empty_list_means_none(storage: Storage) -> None:
    await post(storage, job())
    async with local(create_app(storage)) as client:
        assert (await client.get(f"{JOBS}?status=")).json()["total"] == 0
        body = {"action": "delete", "ids": [], "expected_count": 0}
        assert (await client.post(f"{JOBS}/actions", json=body)).status_code == 202
    assert await storage.jobs.count(JobFilter()) == {"pending": 1}


async def test_search_finds_text_literally(storage: Storage) -> None:
    for text in ("100%", "100x", "a_b", "aXb", "back\\slash"):
        await post(storage, job(json.dumps({"t": text})))
    async with local(create_app(storage)) as client:
        for search, found in (("100%", 1), ("A_B", 1), ("%", 1), ("slash", 1)):
            page = (await client.get(JOBS, params={"search": search})).json()
            assert (search, page["total"]) == (search, found)
