"""The same on a PostgreSQL server: nothing in the façade knows which backend it has."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from forge_jobs import Deduped, EnqueueRequest, StoreUnavailable, SyncQueue, WaitTimeout
from forge_jobs.storage.types.job import JobFilter
from forge_jobs.testing.postgres import Server
from forge_jobs.testing.throwaway import reserved_port

from .stage import acknowledged, run, stored

THREADS, EACH = 8, 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    made = server.new_database()
    yield made
    server.drop_database(made)


def test_the_verbs_work_from_many_threads(url: str) -> None:
    with SyncQueue(url) as queue, ThreadPoolExecutor(THREADS) as threads:
        first = queue.enqueue(EnqueueRequest("mail", dedupe_key="k"))
        assert isinstance(queue.enqueue(EnqueueRequest("mail", dedupe_key="k")), Deduped)
        requests = [EnqueueRequest("mail", n) for n in range(EACH)]
        for _ in threads.map(lambda _: [queue.enqueue(request) for request in requests], range(THREADS)):
            pass
        queue.enqueue_bulk(requests)
        assert queue.count(JobFilter()) == {"pending": 1 + (THREADS + 1) * EACH}
        queue.wake(["default"])
        with pytest.raises(WaitTimeout):
            queue.wait(first.id, timeout=0.1)
        assert queue.cancel(first.id) == "cancelled"
        assert queue.wait(first.id).row.dead_reason == "cancelled"


@pytest.mark.parametrize(
    ("program", "count"),
    [("leave last_line", 5), ("leave at_exit", 8), ("leave other_thread", 105), ("grandchildren", 5), ("pool", 32)],
)
def test_programs_end_and_fork_as_with_a_file(url: str, program: str, count: int) -> None:
    name, *arguments = program.split()
    status, said, err = run(name, url, *arguments)
    assert (status, err) == (0, "")
    assert len(acknowledged(said)) == count
    assert set(acknowledged(said)) == set(stored(url))


def test_a_server_that_is_not_there_is_told_by_the_same_class() -> None:
    with (
        reserved_port() as port,
        pytest.raises(StoreUnavailable),
        SyncQueue(f"postgresql://postgres@127.0.0.1:{port}/none"),
    ):
        pass
