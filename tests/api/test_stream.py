"""Live news, as a browser's EventSource reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest

from forge_jobs import EnqueueRequest
from forge_jobs.api.banners import Banners
from forge_jobs.api.problem import Problem
from forge_jobs.api.stream import REPLAY, WAITING, Hub, Wanted
from forge_jobs.config import StoreConfig
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.testing.cluster import until

from .live import Live
from .stage import TOKENS, token_file


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    name: str
    id: str
    items: list[dict[str, Any]]


Stream: TypeAlias = AsyncIterator[Event]
QUICK = StoreConfig(event_flush_s=0.05)
ONE_BACKEND = pytest.mark.parametrize("live", ["sqlite"], indirect=True)
MOSTLY_ONE = pytest.mark.parametrize(
    "live", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture(params=["sqlite", "postgresql"])
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/jobs.db"
    else:
        url = request.getfixturevalue("postgres").new_store()
    with Live(url, "--token-file", str(token_file(tmp_path))) as running:
        yield running


@asynccontextmanager
async def listening(live: Live, role: str = "admin", query: str = "", **headers: str) -> AsyncIterator[Stream]:
    """A stream that is open."""
    sent = {"Authorization": f"Bearer {TOKENS[role]}", **headers}
    async with (
        httpx2.AsyncClient(timeout=20) as client,
        client.stream("GET", f"{live.base}/api/v1/events{query}", headers=sent) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _events(response)


async def _events(response: httpx2.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]).get("items", []))
            fields = {}
        else:
            fields = {}


async def heard(stream: Stream, event_name: str, /, **wanted: Any) -> tuple[Event, dict[str, Any]]:
    """The first item of this name that has these values."""
    async with asyncio.timeout(15):
        async for event in stream:
            for item in event.items if event.name == event_name else []:
                assert "payload" not in item
                if all(item.get(key) == value for key, value in wanted.items()):
                    return event, item
    raise AssertionError("the stream ended")


@MOSTLY_ONE
async def test_what_happens_is_told(live: Live) -> None:
    async with open_storage(live.url, config=QUICK) as storage, listening(live) as stream:
        await heard(stream, "tick")
        job = await storage.jobs.enqueue(EnqueueRequest("send", {"password": "x"}, queue="mail"))
        await heard(stream, "job", job_id=job.id, type="enqueued", queue="mail", kind="send")
        await storage.queues.pause("mail")
        await heard(stream, "queue", name="mail", paused=True)
        await storage.schedules.disable("nightly")
        await heard(stream, "schedule", name="nightly", state="disabled")
        await storage.rate_limits.change("gh", capacity=3)
        await heard(stream, "limit", scope="gh", capacity=3)
        await storage.processes.remove("01JH3V7M8Q2X4N5P6R7S8T9VWX")
        await heard(stream, "worker", removed=True)


@ONE_BACKEND
async def test_a_listener_hears_of_what_it_asked_for_and_may_see(live: Live) -> None:
    async with open_storage(live.url, config=QUICK) as storage, listening(live, "limited") as limited:
        await heard(limited, "tick")
        async with listening(live, query="?kind=build") as builds:
            await heard(builds, "tick")
            await storage.jobs.enqueue(EnqueueRequest("build", queue="other"))
            mine = await storage.jobs.enqueue(EnqueueRequest("send", queue="mail"))
            _, first = await heard(limited, "job")
            assert first["job_id"] == mine.id
            _, built = await heard(builds, "job")
            assert built["kind"] == "build"


@ONE_BACKEND
async def test_a_stream_goes_on_where_it_broke_off(live: Live) -> None:
    async with open_storage(live.url, config=QUICK) as storage, listening(live) as other:
        await heard(other, "tick")
        async with listening(live) as stream:
            one = await storage.jobs.enqueue(EnqueueRequest("send", queue="mail"))
            event, _ = await heard(stream, "job", job_id=one.id)
        two = await storage.jobs.enqueue(EnqueueRequest("send", queue="mail"))
        await heard(other, "job", job_id=two.id)
        async with listening(live, **{"Last-Event-ID": event.id}) as again:
            await heard(again, "job", job_id=two.id)
        async with listening(live, **{"Last-Event-ID": "another-server-7"}) as strange:
            assert (await anext(strange)).name == "resync"


@MOSTLY_ONE
async def test_banners_are_told_as_they_come_change_and_go(live: Live) -> None:
    """Also to who begins to listen later."""
    async with open_storage(live.url, config=QUICK) as storage, listening(live) as stream:
        await heard(stream, "banner", id="unserved/other", level="error", queue="other")  # which was there already
        job = await storage.jobs.enqueue(EnqueueRequest("send", queue="lost"))
        _, banner = await heard(stream, "banner", id="unserved/lost")
        assert banner["text"] == "queue lost has no live worker; 1 job waits"
        await storage.jobs.enqueue(EnqueueRequest("send", queue="lost"))
        _, banner = await heard(stream, "banner", id="unserved/lost")
        assert banner == {"id": "unserved/lost", "text": "queue lost has no live worker; 2 jobs wait"}
        async with listening(live) as late, listening(live, "limited") as limited:
            await heard(late, "banner", id="unserved/lost", kind="unserved", queue="lost")
            await storage.jobs.act_on("cancel", JobFilter(queues=("lost",)))
            await heard(late, "banner", id="unserved/lost", removed=True)
            await storage.jobs.retry(job.id)
            event, _ = await heard(stream, "banner", id="unserved/lost", kind="unserved")
            async for told in limited:  # of the queue mail alone
                assert {item.get("queue") for item in told.items if told.name == "banner"} <= {None, "mail"}
                assert not [item for item in told.items if item.get("id") == "unserved/lost"]
                if told.name == "tick" and told.id.partition("-")[2] >= event.id.partition("-")[2]:
                    break


@ONE_BACKEND
async def test_who_comes_back_after_nobody_listened_is_told_to_read_anew(live: Live) -> None:
    async with listening(live) as stream:
        event, _ = await heard(stream, "tick")

    async def resynced() -> bool:
        """At once, unless the server has yet to see that the first is gone."""
        async with listening(live, **{"Last-Event-ID": event.id}) as again, asyncio.timeout(15):
            return (await anext(again)).name == "resync"

    await until(resynced, within_s=20)


async def test_a_shutdown_does_not_wait_for_listeners(tmp_path: Path) -> None:
    with Live(f"sqlite:///{tmp_path}/jobs.db") as live:
        async with (
            httpx2.AsyncClient(timeout=20) as client,
            client.stream("GET", f"{live.base}/api/v1/events") as stream,
        ):
            assert stream.status_code == 200
            lines = stream.aiter_lines()
            await anext(lines)
            live.stop()
            async with asyncio.timeout(10):
                async for _ in lines:
                    pass


# The hub itself


@pytest.fixture
async def hub(storage: Storage) -> AsyncIterator[Hub]:
    made = Hub(storage, Banners(storage), 2, timedelta(seconds=30))
    yield made
    made.close()


ANY_STORE = pytest.mark.parametrize("url", ["memory"], indirect=True)


@ANY_STORE
async def test_streams_are_few(hub: Hub) -> None:
    first, _ = hub.listen(Wanted(), None)
    hub.listen(Wanted(), None)
    with pytest.raises(Problem) as refused:
        hub.listen(Wanted(), None)
    assert refused.value.code == "rate_limited"
    hub.leave(first)
    hub.listen(Wanted(), None)


@ANY_STORE
async def test_a_slow_listener_is_dropped(hub: Hub) -> None:
    slow, _ = hub.listen(Wanted(), None)
    for n in range(WAITING + 1):
        hub._tell("job", {"n": n}, None, None, None)
    assert slow.dropped

    async def admitted() -> bool:
        return True

    frames = [frame async for frame in hub.frames(slow, True, admitted)]
    assert len(frames) == 1  # its retry interval, and nothing more


@ANY_STORE
async def test_a_stream_ends_when_its_caller_is_not_admitted_any_more(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.api.stream.RECHECK_S", 0.0)
    listener, complete = hub.listen(Wanted(), None)

    async def admitted() -> bool:
        return False

    async with asyncio.timeout(5):
        assert len([frame async for frame in hub.frames(listener, complete, admitted)]) == 1


@ANY_STORE
async def test_what_is_too_long_ago_is_read_anew(hub: Hub) -> None:
    first, _ = hub.listen(Wanted(), None)
    hub._tell("job", {}, None, None, None)
    old = hub._id(hub._seq)
    for _ in range(REPLAY + 1):
        hub._tell("queue", {}, "q", None, None)
    hub.leave(first)
    _, complete = hub.listen(Wanted(queue="x"), old)
    assert not complete
