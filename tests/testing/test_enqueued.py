"""Assertions about what was enqueued, and what a miss shows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from forge_jobs import EnqueueRequest, HandlerRegistry, Storage
from forge_jobs.testing import ManualClock, all_enqueued, assert_enqueued, drain, refute_enqueued

BACKENDS = pytest.mark.parametrize("forge_backend", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def mailed(forge_storage: Storage) -> Storage:
    """Two mails and a receipt."""
    for request in (
        EnqueueRequest("mail", {"to": "ada", "lines": [1, 2]}, queue="mail"),
        EnqueueRequest("mail", {"to": "grace"}, queue="mail", delay=3600, priority=5, dedupe_key="grace"),
        EnqueueRequest("receipt", {"order": 7}, queue="default"),
    ):
        await forge_storage.jobs.enqueue(request)
    return forge_storage


@BACKENDS
async def test_a_job_that_fits_is_found(mailed: Storage) -> None:
    (found,) = await assert_enqueued(mailed, "mail", payload={"to": "ada", "lines": [1, 2]}, queue="mail")
    assert found.payload["to"] == "ada"
    await assert_enqueued(mailed, "mail", times=2)
    await assert_enqueued(mailed, "mail", times=None)
    await assert_enqueued(mailed, "mail", payload=lambda payload: payload["to"] == "grace", priority=5)
    await assert_enqueued(mailed, "mail", dedupe_key="grace")


@BACKENDS
async def test_when_a_job_is_due_is_given_as_an_instant_or_from_now(mailed: Storage, forge_clock: ManualClock) -> None:
    for when in (3600, "1h", timedelta(hours=1), forge_clock.now() + timedelta(hours=1)):
        (found,) = await assert_enqueued(mailed, "mail", scheduled_at=when)
        assert found.payload == {"to": "grace"}
    with pytest.raises(AssertionError, match="scheduled_at: 2026-01-01T01:00:00"):
        await assert_enqueued(mailed, "mail", scheduled_at="2h")


async def test_a_miss_shows_the_nearest_jobs_and_where_they_differ(mailed: Storage) -> None:
    with pytest.raises(AssertionError) as missed:
        await assert_enqueued(mailed, "mail", payload={"to": "ada", "lines": [1, 3], "cc": None}, queue="mail")
    first, second, nearest, *others = str(missed.value).splitlines()
    assert first.startswith("expected 1 job with kind='mail', queue='mail', payload={'to': 'ada'")
    assert first.endswith("found 0")
    assert second == "the nearest of 3:"
    assert nearest.endswith("payload.lines[1]: 2 instead of 3; payload.cc: missing, instead of None")
    assert "mail on mail" in others[0]
    assert "kind: 'receipt' instead of 'mail'" in others[1]


async def test_too_many_are_as_wrong_as_too_few(mailed: Storage) -> None:
    with pytest.raises(AssertionError, match=r"expected 1 job with kind='mail', found 2\n[^\n]*\n.*fits"):
        await assert_enqueued(mailed, "mail")


async def test_true_is_not_one(forge_storage: Storage) -> None:
    await forge_storage.jobs.enqueue(EnqueueRequest("flag", {"on": True}, queue="default"))
    await refute_enqueued(forge_storage, "flag", payload={"on": 1})
    await assert_enqueued(forge_storage, "flag", payload={"on": True})


async def test_what_is_refuted_must_not_be_there(mailed: Storage) -> None:
    await refute_enqueued(mailed, "mail", payload={"to": "alan"})
    await refute_enqueued(mailed, "mail", queue="default")
    with pytest.raises(AssertionError, match="expected 0 jobs with kind='receipt', found 1"):
        await refute_enqueued(mailed, "receipt")


async def test_an_empty_store_says_so(forge_storage: Storage) -> None:
    with pytest.raises(AssertionError, match="the store holds no job"):
        await assert_enqueued(forge_storage, "mail")


async def test_jobs_are_found_whatever_became_of_them(mailed: Storage, forge_handlers: HandlerRegistry) -> None:
    @forge_handlers.handler("receipt")
    async def receipt(payload: object) -> None: ...

    await drain(mailed, forge_handlers)
    (found,) = await assert_enqueued(mailed, "receipt", payload={"order": 7})
    assert found.status == "done"


@BACKENDS
async def test_all_that_was_enqueued_comes_in_order_however_much_it_is(forge_storage: Storage) -> None:
    for part in range(2):
        await forge_storage.jobs.enqueue_bulk(
            [EnqueueRequest("row", number, queue="bulk") for number in range(part * 600, part * 600 + 600)]
        )
    assert [job.payload for job in await all_enqueued(forge_storage)] == list(range(1200))
    assert await all_enqueued(forge_storage, "mail") == []
    assert len(await all_enqueued(forge_storage, queue="bulk")) == 1200
