"""What may be asked of an enqueue: every rule with values that keep it and values that break it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from forge_jobs import limits
from forge_jobs.clock import from_us
from forge_jobs.ids import new_id
from forge_jobs.storage.error import InvalidInput, InvalidKey, InvalidName, InvalidPayload
from forge_jobs.storage.request import check_request, check_requests
from forge_jobs.storage.types.job import EnqueueRequest, OnConflict
from forge_jobs.testing.factories import make_request

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Text(str):
    """Text that is not quite text."""


class Number(int):
    """A number that is not quite one."""


class Weekday(timedelta):
    """A duration of one's own is a duration."""


LEGAL_NAMES = ["q", "default", "a.b-c_d:e", "_", "9", "a" * 128, "CON", "A"]
ILLEGAL_NAMES = [
    "", "a" * 129, " q", "q ", "q\n", "a b", "q\0x", "../../etc/passwd", "..", ".a", ":a", "a/b", "a%2fb",
    'q" OR 1=1 --', "<b>q</b>", "\uff51", "é", "*", "-rf", "q,r", "\ud800", "q\u200b",
]  # fmt: skip
NO_TEXT: list[Any] = [5, True, b"q", ["q"], 1.5]

# field, value, the class of the refusal, its reason
REFUSED: list[tuple[str, Any, type[InvalidInput], str]] = [
    *((field, name, InvalidName, "invalid_name") for field in ("queue", "kind") for name in ILLEGAL_NAMES),
    *((field, value, InvalidName, "invalid_type") for field in ("queue", "kind") for value in NO_TEXT),
    ("kind", None, InvalidName, "invalid_type"),
    ("kind", Text("q"), InvalidName, "invalid_name"),
    ("queue", None, InvalidInput, "missing_field"),
    ("priority", 1.5, InvalidInput, "invalid_type"),
    ("priority", 1.0, InvalidInput, "invalid_type"),
    ("priority", True, InvalidInput, "invalid_type"),
    ("priority", "5", InvalidInput, "invalid_type"),
    ("priority", None, InvalidInput, "invalid_type"),
    ("priority", Number(5), InvalidInput, "invalid_type"),
    ("priority", 10**30, InvalidInput, "out_of_range"),
    ("priority", 10**5000, InvalidInput, "out_of_range"),
    ("priority", -(10**10), InvalidInput, "out_of_range"),
    ("priority", 1001, InvalidInput, "out_of_range"),
    ("priority", -1001, InvalidInput, "out_of_range"),
    ("max_attempts", 0, InvalidInput, "out_of_range"),
    ("max_attempts", -1, InvalidInput, "out_of_range"),
    ("max_attempts", 1001, InvalidInput, "out_of_range"),
    ("max_attempts", 1_000_001, InvalidInput, "out_of_range"),
    ("max_attempts", 2.0, InvalidInput, "invalid_type"),
    ("max_attempts", False, InvalidInput, "invalid_type"),
    ("dedupe_key", "", InvalidKey, "invalid_key"),
    ("dedupe_key", "a\0b", InvalidKey, "invalid_key"),
    ("dedupe_key", "a\nb", InvalidKey, "invalid_key"),
    ("dedupe_key", "a\u200bb", InvalidKey, "invalid_key"),
    ("dedupe_key", "\ud800", InvalidKey, "invalid_key"),
    ("dedupe_key", "k" * 256, InvalidKey, "invalid_key"),
    ("dedupe_key", 7, InvalidKey, "invalid_type"),
    ("dedupe_key", b"key", InvalidKey, "invalid_type"),
    ("delay", -1, InvalidInput, "out_of_range"),
    ("delay", -0.001, InvalidInput, "out_of_range"),
    ("delay", timedelta(seconds=-1), InvalidInput, "out_of_range"),
    ("delay", 1e18, InvalidInput, "out_of_range"),
    ("delay", float("nan"), InvalidInput, "out_of_range"),
    ("delay", float("inf"), InvalidInput, "out_of_range"),
    ("delay", 10**400, InvalidInput, "out_of_range"),
    ("delay", 10**5000, InvalidInput, "out_of_range"),
    ("delay", timedelta.max, InvalidInput, "out_of_range"),
    ("delay", "10m", InvalidInput, "invalid_type"),
    ("delay", True, InvalidInput, "invalid_type"),
    ("ttl", -1, InvalidInput, "out_of_range"),
    ("ttl", "1h", InvalidInput, "invalid_type"),
    ("ttl", 11 * 366 * 86_400, InvalidInput, "out_of_range"),
    ("run_at", datetime(2026, 1, 1), InvalidInput, "naive_time"),
    ("run_at", "2026-01-01T00:00:00Z", InvalidInput, "invalid_type"),
    ("run_at", 1e20, InvalidInput, "invalid_type"),
    ("run_at", date(2026, 1, 1), InvalidInput, "invalid_type"),
    ("run_at", datetime(1, 1, 1, tzinfo=UTC), InvalidInput, "out_of_range"),
    ("run_at", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), InvalidInput, "out_of_range"),
    ("run_at", datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=1))), InvalidInput, "out_of_range"),
    ("run_at", datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12))), InvalidInput, "out_of_range"),
    ("expires_at", datetime(2026, 1, 1), InvalidInput, "naive_time"),
    ("expires_at", 0, InvalidInput, "invalid_type"),
    ("expires_at", datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-12))), InvalidInput, "out_of_range"),
    ("id", "", InvalidInput, "invalid_id"),
    ("id", "42", InvalidInput, "invalid_id"),
    ("id", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", InvalidInput, "invalid_id"),
    ("id", "01J000000000000000000000OI", InvalidInput, "invalid_id"),
    ("id", 5, InvalidInput, "invalid_id"),
    ("on_conflict", "ignore", InvalidInput, "invalid_value"),
    ("on_conflict", "SKIP", InvalidInput, "invalid_value"),
    ("on_conflict", None, InvalidInput, "invalid_value"),
    ("on_conflict", ["skip"], InvalidInput, "invalid_value"),
    ("tags", "tag", InvalidInput, "invalid_type"),
    ("tags", "", InvalidInput, "invalid_type"),
    ("tags", {}, InvalidInput, "invalid_type"),
    ("tags", {"a"}, InvalidInput, "invalid_type"),
    ("tags", 5, InvalidInput, "invalid_type"),
    ("tags", ["tag"] * 17, InvalidInput, "out_of_range"),
    ("tags", [""], InvalidInput, "invalid_tag"),
    ("tags", ["t" * 65], InvalidInput, "invalid_tag"),
    ("tags", ["a\nb"], InvalidInput, "invalid_tag"),
    ("tags", [5], InvalidInput, "invalid_tag"),
    ("trace", "00-1-2", InvalidInput, "invalid_type"),
    ("trace", {"a": 1}, InvalidInput, "invalid_type"),
    ("trace", {1: "a"}, InvalidInput, "invalid_type"),
    ("trace", {"a": "x" * 5_000}, InvalidInput, "out_of_range"),
    ("payload", float("nan"), InvalidPayload, "number_out_of_range"),
]  # fmt: skip

# fields -> the fields of the stored form that they become
ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"priority": 0, "max_attempts": 5, "run_at_us": None, "delay_us": 0, "dedupe_key": None, "payload": "null"}),
    *(({"queue": name}, {"queue": name}) for name in LEGAL_NAMES),
    *(({"kind": name}, {"kind": name}) for name in LEGAL_NAMES),
    ({"priority": -1000}, {"priority": -1000}),
    ({"priority": 1000}, {"priority": 1000}),
    ({"max_attempts": 1}, {"max_attempts": 1}),
    ({"max_attempts": 1000}, {"max_attempts": 1000}),
    ({"dedupe_key": "k"}, {"dedupe_key": "k", "on_conflict": "skip"}),
    ({"dedupe_key": "k" * 255}, {"dedupe_key": "k" * 255}),
    ({"dedupe_key": "Käse 1 / %_'\""}, {"dedupe_key": "Käse 1 / %_'\""}),
    ({"dedupe_key": "k", "on_conflict": "replace"}, {"on_conflict": "replace"}),
    ({"dedupe_key": "k", "on_conflict": OnConflict.ERROR}, {"on_conflict": "error"}),
    ({"dedupe_key": "k", "unique_for": 1}, {"unique_for_us": 1_000_000}),
    ({"dedupe_key": "k", "unique_for": timedelta(days=366)}, {"unique_for_us": 366 * 86_400_000_000}),
    ({"delay": 0}, {"delay_us": 0}),
    ({"delay": 0.0000014}, {"delay_us": 1}),
    ({"delay": 2.5}, {"delay_us": 2_500_000}),
    ({"delay": timedelta(minutes=1)}, {"delay_us": 60_000_000}),
    ({"delay": Weekday(days=1)}, {"delay_us": 86_400_000_000}),
    ({"delay": 10 * 365 * 86_400}, {"delay_us": 10 * 365 * 86_400_000_000}),
    ({"ttl": 60}, {"ttl_us": 60_000_000, "expires_at_us": None}),
    ({"run_at": datetime(1970, 1, 1, tzinfo=UTC)}, {"run_at_us": 0}),
    ({"run_at": NOON.astimezone(timezone(timedelta(hours=9)))}, {"run_at_us": 1_780_315_200_000_000}),
    ({"expires_at": NOON}, {"expires_at_us": 1_780_315_200_000_000}),
    ({"id": "01j00000000000000000000abc"}, {"id": "01J00000000000000000000ABC"}),
    ({"tags": ["a", "ü"]}, {"tags": '["a","ü"]'}),
    ({"tags": ("t" * 64,) * 16}, {"tags": str(["t" * 64] * 16).replace("'", '"').replace(" ", "")}),
    ({"tags": []}, {"tags": None}),
    ({"trace": {"traceparent": "00-1-2"}}, {"trace": '{"traceparent":"00-1-2"}'}),
    ({"trace": {}}, {"trace": "{}"}),
]


def _named(value: Any) -> str:
    return ascii(value)[:40] if not isinstance(value, int) or abs(value) < 10**30 else "a huge number"


class TestRefusals:
    @pytest.mark.parametrize(
        ("field", "value", "error", "reason"),
        REFUSED,
        ids=[f"{n}-{field}={_named(value)}" for n, (field, value, _, _) in enumerate(REFUSED)],
    )
    def test_a_bad_value_is_refused_by_field_and_reason(
        self, field: str, value: Any, error: type[InvalidInput], reason: str
    ) -> None:
        request = replace(make_request(), **{field: value})
        with pytest.raises(InvalidInput) as caught:
            check_request(request)
        assert type(caught.value) is error
        assert (caught.value.field, caught.value.reason) == (field, reason)
        assert field.removesuffix("s") in str(caught.value)  # "tag 'x' must be …" is about tags
        assert len(str(caught.value)) < 1_000

    @pytest.mark.parametrize(
        ("fields", "field", "reason"),
        [
            ({"delay": 1, "run_at": NOON}, "run_at delay", "conflicting_fields"),
            ({"delay": 0, "run_at": NOON}, "run_at delay", "conflicting_fields"),
            ({"ttl": 1, "expires_at": NOON}, "expires_at ttl", "conflicting_fields"),
            ({"unique_for": 60}, "unique_for", "missing_field"),
            ({"dedupe_key": "k", "unique_for": 0}, "unique_for", "out_of_range"),
            ({"dedupe_key": "k", "unique_for": 367 * 86_400}, "unique_for", "out_of_range"),
            ({"dedupe_key": "k", "unique_for": "1h"}, "unique_for", "invalid_type"),
        ],
    )
    def test_fields_must_fit_each_other(self, fields: dict[str, Any], field: str, reason: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            check_request(make_request(**fields))
        assert caught.value.field in field.split()
        assert caught.value.reason == reason

    def test_unknown_fields_are_refused(self) -> None:
        with pytest.raises(TypeError, match="prioirty"):
            EnqueueRequest("kind", {}, prioirty=5)  # type: ignore[call-arg]

    def test_a_message_names_the_value_and_the_rule(self) -> None:
        with pytest.raises(InvalidName, match=r"'a,b'.*1 to 128"):
            check_request(make_request(queue="a,b"))
        with pytest.raises(InvalidInput, match=r"1001.*-1000 … 1000"):
            check_request(make_request(priority=1001))


class TestStoredForm:
    @pytest.mark.parametrize(
        ("fields", "stored"), ACCEPTED, ids=[f"{n}-{ascii(f)[:40]}" for n, (f, _) in enumerate(ACCEPTED)]
    )
    def test_a_legal_request_becomes(self, fields: dict[str, Any], stored: dict[str, Any]) -> None:
        job = check_request(make_request(**fields))
        assert {name: getattr(job, name) for name in stored} == stored

    def test_every_instant_that_is_accepted_can_be_read_back(self) -> None:
        latest = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        job = check_request(make_request(run_at=latest))
        assert job.run_at_us is not None
        assert from_us(job.run_at_us) == latest

    def test_the_default_payload_is_an_empty_object_and_null_stays_null(self) -> None:
        assert check_request(EnqueueRequest("kind", queue="q")).payload == "{}"
        assert check_request(EnqueueRequest("kind", None, queue="q")).payload == "null"

    def test_a_request_keeps_its_id_and_gets_one_if_it_has_none(self) -> None:
        own = new_id()
        assert check_request(make_request(id=own)).id == own
        first, second = check_request(make_request()).id, check_request(make_request()).id
        assert own < first < second

    def test_the_parent_is_kept(self) -> None:
        parent = new_id()
        assert check_request(make_request(), parent_id=parent).parent_id == parent
        assert check_request(make_request(delay=1), parent_id=parent).parent_id == parent

    def test_a_request_is_a_value(self) -> None:
        request = make_request(tags=("a",), delay=timedelta(seconds=1))
        assert pickle.loads(pickle.dumps(request)) == request
        assert request == make_request(tags=("a",), delay=timedelta(seconds=1))


class TestBulk:
    def test_ids_are_minted_in_the_order_of_the_requests(self) -> None:
        own = new_id()
        jobs = check_requests([make_request(), make_request(id=own), make_request()])
        assert jobs[1].id == own
        assert own < jobs[0].id < jobs[2].id

    def test_nothing_asked_is_nothing_made(self) -> None:
        assert check_requests([]) == []

    def test_a_bad_request_is_named_by_its_place(self) -> None:
        with pytest.raises(InvalidName, match="request 2: ") as caught:
            check_requests([make_request(), make_request(), make_request(queue="a b")])
        assert (caught.value.field, caught.value.reason) == ("queue", "invalid_name")

    def test_a_bad_id_is_named_by_its_place(self) -> None:
        with pytest.raises(InvalidInput, match="request 1: "):
            check_requests([make_request(), make_request(id="x")])

    def test_the_number_of_requests_is_bounded(self) -> None:
        assert len(check_requests([make_request()] * limits.BULK_REQUESTS)) == limits.BULK_REQUESTS
        with pytest.raises(InvalidInput) as caught:
            check_requests([make_request()] * (limits.BULK_REQUESTS + 1))
        assert caught.value.reason == "out_of_range"

    def test_the_size_of_all_payloads_is_bounded(self) -> None:
        large = make_request(payload="x" * (limits.PAYLOAD_MAX_BYTES - 2))
        assert len(check_requests([large] * 64)) == 64
        with pytest.raises(InvalidInput) as caught:
            check_requests([large] * 64 + [make_request()])
        assert caught.value.reason == "payload_too_large"
