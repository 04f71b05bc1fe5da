"""Frames between a worker and its children, and what travels in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Deduped, Enqueued, EnqueueRequest
from forge_jobs.ids import new_id
from forge_jobs.runtime.executors.follow_ups import pack_outcome, pack_requests, unpack_outcome, unpack_requests
from forge_jobs.runtime.executors.frames import (
    FRAME_BYTES,
    LENGTH,
    BrokenStream,
    Frames,
    FrameTooLong,
    LogLine,
    error_of,
    from_child,
    pack,
    wire_error,
)
from forge_jobs.storage.error import DedupeConflict, ForgeError, InvalidPayload, QueueFull, StorageError
from forge_jobs.storage.types.job import JobStatus


@pytest.mark.parametrize("size", [1, 3, 7, 64, 10_000])
def test_frames_come_out_whole_however_they_are_cut(size: int) -> None:
    messages = [LogLine("a", 20, "x" * n) for n in (0, 1, 500)] + [LogLine("b", 30, "\N{SNOWMAN}\n\0")]
    stream = b"".join(map(pack, messages))
    frames = Frames()
    found = [body for at in range(0, len(stream), size) for body in frames.feed(stream[at : at + size])]
    assert [from_child.decode(body) for body in found] == messages


def test_a_frame_that_is_too_long_is_refused_on_both_sides() -> None:
    pack(LogLine("a", 20, "x" * (FRAME_BYTES - 100)))
    with pytest.raises(FrameTooLong, match=str(FRAME_BYTES)):
        pack(LogLine("a", 20, "x" * FRAME_BYTES))
    with pytest.raises(BrokenStream):
        list(Frames().feed(LENGTH.pack(FRAME_BYTES + 1)))


@pytest.mark.parametrize(
    "error",
    [
        InvalidPayload("bad", field="payload.a", reason="invalid_type"),
        DedupeConflict("k", "01J00000000000000000000001"),
        QueueFull("q", 3),
    ],
)
def test_an_error_of_ours_is_the_same_on_the_other_side(error: ForgeError) -> None:
    found = error_of(wire_error(error))
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_any_other_error_becomes_one_of_ours_with_its_text() -> None:
    found = error_of(wire_error(OSError("no disk")))
    assert (type(found), str(found)) == (StorageError, "OSError: no disk")


def test_requests_are_the_same_on_the_other_side() -> None:
    at = datetime(2030, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    requests = [
        EnqueueRequest("a", {"n": 10**40, "f": 0.1, "t": "\N{SNOWMAN}"}, id=new_id()),
        EnqueueRequest("b", queue="q", priority=-3, max_attempts=9, run_at=at, expires_at=at, id=new_id()),
        EnqueueRequest("c", delay=timedelta(seconds=1.5), ttl=timedelta(hours=1), id=new_id(), trace={"a": "b"}),
        EnqueueRequest("d", dedupe_key="k", unique_for=timedelta(days=1), tags=["x", "y"], id=new_id()),
    ]
    assert unpack_requests(*pack_requests(requests, bulk=True)) == requests


def test_a_request_gets_its_id_where_it_is_made() -> None:
    (found,) = unpack_requests(*pack_requests([EnqueueRequest("a")], bulk=False))
    assert found.id is not None


def test_what_json_would_change_is_refused_where_it_is_made() -> None:
    with pytest.raises(InvalidPayload, match="tuple"):
        pack_requests([EnqueueRequest("a", {"x": (1, 2)})], bulk=False)


def test_outcomes_are_the_same_on_the_other_side() -> None:
    for outcome in (Enqueued(new_id()), Enqueued(new_id(), repeated=True), Deduped(new_id(), JobStatus.FAILED)):
        assert unpack_outcome(pack_outcome(outcome)) == outcome
