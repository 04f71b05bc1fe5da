"""What the decorator makes of a function is called like it, and enqueues jobs of its kind."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forge_jobs import (
    ConfigError,
    EnqueueRequest,
    HandlerRegistry,
    InvalidInput,
    InvalidPayload,
    JobCtx,
    JobId,
    Storage,
    SyncQueue,
    open_storage,
)
from forge_jobs.runtime.handler_function import RequestOptions


class Letter(msgspec.Struct):
    to: str
    copies: int = 1


handlers = HandlerRegistry()


@handlers.handler("letter.send", queue="mail", max_attempts=7)
async def send(ctx: JobCtx, letter: Letter) -> None:
    """Send a letter."""
    sent.append(letter)


@handlers.handler("clean_up")
async def clean_up(ctx: JobCtx) -> None: ...


@handlers.handler("echo")
async def echo(payload: dict[str, Any]) -> None: ...


sent: list[Letter] = []


async def test_it_is_called_like_the_function() -> None:
    sent.clear()
    await send(None, Letter("a"))  # type: ignore[arg-type]
    assert sent == [Letter("a")]
    assert (send.kind, send.__name__, send.__doc__) == ("letter.send", "send", "Send a letter.")


def test_a_request_carries_what_the_handler_declares() -> None:
    assert send.request(Letter("a")) == EnqueueRequest(
        "letter.send", {"to": "a", "copies": 1}, queue="mail", max_attempts=7
    )
    asked = send.request(Letter("a"), queue="other", max_attempts=1, delay=timedelta(seconds=5), tags=["x"])
    assert asked == EnqueueRequest(
        "letter.send",
        {"to": "a", "copies": 1},
        queue="other",
        max_attempts=1,
        delay=timedelta(seconds=5),
        tags=["x"],
    )


def test_the_default_payload_is_an_empty_object() -> None:
    assert clean_up.request() == EnqueueRequest("clean_up", {})
    assert clean_up.request({"since": 5}) == EnqueueRequest("clean_up", {"since": 5})
    assert echo.request(None) == EnqueueRequest("echo", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidPayload, match="missing required field `to`"):
        send.request()  # type: ignore[call-arg]


def test_a_wrong_payload_is_refused_before_it_is_stored() -> None:
    with pytest.raises(InvalidPayload, match="payload is a dict, not Letter"):
        send.request({"to": "a"})  # type: ignore[arg-type]
    with pytest.raises(InvalidPayload, match=r"payload\.when is a object"):
        echo.request({"when": object()})


def test_its_options_are_the_fields_of_a_request() -> None:
    fields = {field.name for field in dataclasses.fields(EnqueueRequest)} - {"kind", "payload"}
    assert set(RequestOptions.__annotations__) == fields
    with pytest.raises(TypeError, match="prio"):
        send.request(Letter("a"), prio=5)  # type: ignore[call-arg]


async def test_it_enqueues_into_a_storage(tmp_path: Path) -> None:
    async with open_storage(f"sqlite:///{tmp_path}/jobs.db") as storage:
        job = await send.enqueue(storage, Letter("a"), priority=-5)
        assert await _row(storage, job.id) == ("mail", "letter.send", -5, '{"to":"a","copies":1}')
        job = await clean_up.enqueue(storage)
        assert await _row(storage, job.id) == ("default", "clean_up", 0, "{}")
        with pytest.raises(InvalidInput, match="queue"):
            await clean_up.enqueue(storage.jobs)
        assert (await storage.jobs.get(job.id)) is not None


def test_it_enqueues_into_a_sync_queue(tmp_path: Path) -> None:
    with SyncQueue(f"sqlite:///{tmp_path}/jobs.db") as queue:
        job = send.enqueue(queue, Letter("a"))
        detail = queue.get(job.id)
        assert detail is not None
        assert detail.row.queue == "mail"


async def _row(storage: Storage, job_id: JobId) -> tuple[str, str, int, str]:
    detail = await storage.jobs.get(job_id)
    assert detail is not None
    return detail.row.queue, detail.row.kind, detail.row.priority, detail.row.payload_text


def test_one_function_may_be_the_handler_of_several_kinds_and_have_schedules() -> None:
    registry = HandlerRegistry()

    async def work(ctx: JobCtx, payload: dict[str, Any]) -> None: ...

    one = registry.handler("one")(work)
    two = registry.schedule("* * * * *", name="each minute".replace(" ", "_"))(registry.handler("two")(one))
    assert (one.kind, two.kind, one.function, two.function) == ("one", "two", work, work)
    assert [(schedule.name, schedule.kind) for schedule in registry.schedules()] == [("each_minute", "two")]
    with pytest.raises(ConfigError, match="no handler yet"):
        registry.schedule("* * * * *")(work)


def test_the_schema_of_a_kind() -> None:
    assert handlers.schema("letter.send")["$defs"]["Letter"]["properties"]["to"] == {"type": "string"}
    assert handlers.schema("clean_up") == {}
    with pytest.raises(ConfigError, match="no handler for kind 'letters'; there are clean_up, echo, letter"):
        handlers.schema("letters")
