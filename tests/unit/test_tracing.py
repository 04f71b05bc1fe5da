"""What travels with a job of a trace, and what a request brings along stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from forge_jobs import EnqueueRequest, limits, tracing
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.request import check_request

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As though the program had set a provider, which can be set only once."""
    monkeypatch.setattr(tracing._settings, "tracer", TracerProvider().get_tracer("test"))
    yield
    tracing.configure()


def sent(**fields: Any) -> EnqueueRequest:
    with tracing.enqueuing([EnqueueRequest("k", queue="q", **fields)]) as (request,):
        return request


@pytest.mark.usefixtures("traced")
class TestEnqueuing:
    def test_the_span_stands_beside_what_the_caller_put_there(self) -> None:
        trace = sent(trace={"tenant": "acme"}).trace
        assert trace is not None
        assert sorted(trace) == ["tenant", "traceparent"]

    def test_a_traceparent_of_the_caller_stays(self) -> None:
        assert sent(trace={"traceparent": PARENT}).trace == {"traceparent": PARENT}

    def test_where_there_is_no_room_the_enqueue_goes_on_without(self) -> None:
        full = {"mine": "x" * (limits.TRACE_BYTES - 20)}
        request = sent(trace=full)
        assert request.trace == full
        assert check_request(request).trace is not None

    def test_an_id_of_the_caller_stays_and_others_get_one(self) -> None:
        assert sent(id="01JH3V7M8Q2X4N5P6R7S8T9VWX").id == "01JH3V7M8Q2X4N5P6R7S8T9VWX"
        assert len(sent().id or "") == 26

    def test_an_odd_request_is_refused_as_ever(self) -> None:
        odd: Any = EnqueueRequest({}, queue=["q"], trace=[1])  # type: ignore[arg-type]
        with tracing.enqueuing([odd]) as (request,):
            assert (request.kind, request.trace) == (odd.kind, odd.trace)

    def test_switched_off_nothing_is_added(self) -> None:
        tracing.configure(runs="off")
        assert sent().trace is None


class TestInherit:
    def test_a_follow_up_carries_the_trace_and_nothing_else_of_its_parent(self) -> None:
        stored = json.dumps({"traceparent": PARENT, "tracestate": "a=1", "schedule": "nightly", "odd": 1})
        request = tracing.inherit(EnqueueRequest("k"), stored)
        assert request.trace == {"traceparent": PARENT, "tracestate": "a=1"}

    @pytest.mark.parametrize("stored", [None, "", "{", "[]", "null"])
    def test_a_job_without_a_trace_leaves_its_follow_up_alone(self, stored: str | None) -> None:
        request = EnqueueRequest("k")
        assert tracing.inherit(request, stored) is request


@pytest.mark.parametrize("given", [{"runs": "sibling"}, {"baggage": "tenant"}])
def test_a_wrong_setting_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        tracing.configure(**given)
