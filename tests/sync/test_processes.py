"""Whole programs: how they end, fork, and are interrupted."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from forge_jobs.sync.background import EXIT_LIMIT_S

from .stage import acknowledged, begin, finish, hear, run, stored


@pytest.mark.parametrize(
    ("how", "status", "count", "complaint"),
    [
        ("last_line", 0, 5, ""),
        ("error", 1, 5, "LookupError: of the program"),
        ("exit", 3, 5, ""),
        ("threads", 0, 5, ""),
        ("at_exit", 0, 8, ""),
        ("other_thread", 0, 105, ""),
    ],
)
def test_a_program_ends_without_a_close_quietly_at_once_and_with_all_its_jobs(
    url: str, how: str, status: int, count: int, complaint: str
) -> None:
    began = time.monotonic()
    returned, said, err = run("leave", url, how)
    assert time.monotonic() - began < 15
    assert returned == status
    assert err.strip().splitlines()[-1:] == ([complaint] if complaint else []), err
    assert err.count("Traceback") == (1 if complaint else 0)
    ids = acknowledged(said)
    assert len(ids) == count if how != "threads" else len(ids) > count
    assert set(ids) <= set(stored(url))


def test_what_the_store_still_has_to_write_is_written_at_the_end(url: str, database: Path) -> None:
    _, said, _ = run("leave", url, "last_line")  # its events are not written before
    with closing(sqlite3.connect(database)) as other:
        told = other.execute("SELECT job_id FROM forge_events WHERE type = 'enqueued'").fetchall()
    assert sorted(told) == sorted((job_id,) for job_id in acknowledged(said))


def test_a_call_after_the_exit_is_refused_in_words(url: str) -> None:
    source = """
import atexit, sys

@atexit.register
def last():
    try:
        queue.enqueue(EnqueueRequest("mail"))
    except StoreUnavailable as error:
        print(error)

from forge_jobs import EnqueueRequest, StoreUnavailable, SyncQueue

queue = SyncQueue(sys.argv[1])
queue.enqueue(EnqueueRequest("mail"))
"""
    with begin("-c", source, url) as program:
        status, [words], err = finish(program)
    assert (status, err) == (0, "")
    assert " ".join(words) == "the program is at its end; its SyncQueues are closed"
    assert len(stored(url)) == 1


def test_a_locked_database_does_not_hold_the_end_of_a_program_for_long(url: str, database: Path) -> None:
    with (
        begin("-m", "sync.programs", "interrupted", url, "wait") as program,
        closing(sqlite3.connect(database, isolation_level=None)) as other,
    ):
        hear(program, "ready")
        other.execute("BEGIN IMMEDIATE")  # so that what the store would still write at its end cannot be written
        began = time.monotonic()
        program.send_signal(signal.SIGINT)
        status, _, err = finish(program)
        took = time.monotonic() - began
    assert EXIT_LIMIT_S <= took < EXIT_LIMIT_S + 10
    assert status == -signal.SIGINT
    assert [line for line in err.splitlines() if not line.startswith(("Traceback", " "))] == [
        "KeyboardInterrupt",
        f"close_timeout: a store is not closed within {EXIT_LIMIT_S:g} s; it is left to its end",
    ]


def test_parent_and_children_go_on_after_a_fork_while_threads_enqueue(url: str) -> None:
    status, said, err = run("prefork", url, "4")
    assert (status, err) == (0, "")
    assert [words for words in said if words[0] == "child"] == [["child", "0"]] * 4
    assert [words for words in said if words[0] == "threads"] == [["threads", "MainThread"]] * 4
    jobs = stored(url)
    ids = acknowledged(said)
    assert set(ids) == set(jobs)
    assert len(ids) == len(jobs)
    for n in range(4):
        assert list(jobs.values()).count(f"child {n}") == 10
    assert list(jobs.values()).count("main") == 20
    assert max(float(words[1]) for words in said if words[0] == "forked") < 10


def test_what_a_child_opens_is_locked_by_the_child(url: str) -> None:
    """A child that opened the file beside what its parent had open would believe in locks that it does not have."""
    _, said, _ = run("prefork", url, "1")
    assert [words for words in said if words[0] == "locks"] == [["locks", "db", "shm"]]


def test_jobs_of_a_child_are_there_when_the_parent_closes_first_and_the_child_is_killed(url: str) -> None:
    """The last to close removes the log. A parent that did not know of the child would take its jobs away with it."""
    status, said, err = run("parent_closes", url)
    assert (status, err) == (0, "")
    assert len(acknowledged(said)) == 23
    assert set(acknowledged(said)) == set(stored(url))


def test_a_child_may_fork_in_its_turn(url: str) -> None:
    status, said, err = run("grandchildren", url)
    assert (status, err) == (0, "")
    assert ["child", "0"] in said
    assert sorted(stored(url).values()) == ["child", "child again", "grandchild", "main", "main again"]


def test_a_pool_of_forked_processes_uses_the_queue_of_its_program(url: str) -> None:
    status, said, err = run("pool", url)
    assert (status, err) == (0, "")
    assert set(acknowledged(said)) == set(stored(url))
    assert len(stored(url)) == 32


def test_a_store_in_memory_stays_with_the_parent(url: str) -> None:
    status, said, err = run("in_memory", "sqlite:///:memory:")
    assert (status, err) == (0, "")
    assert [words for words in said if words[0] != "ack"] == [["refused"], ["own", "1"], ["child", "0"], ["main", "3"]]


def test_a_child_of_a_fork_that_nobody_prepared_is_refused(url: str) -> None:
    status, said, err = run("foreign_fork", url)
    assert (status, err) == (0, "")
    assert [words for words in said if words[0] != "ack"] == [["refused"], ["child", "0"]]
    assert len(stored(url)) == len(acknowledged(said)) == 2


@pytest.mark.parametrize("verb", ["wait", "enqueue"])
def test_an_interrupted_call_leaves_a_queue_that_works(url: str, database: Path, verb: str) -> None:
    with (
        begin("-m", "sync.programs", "interrupted", url, verb) as program,
        closing(sqlite3.connect(database, isolation_level=None)) as other,
    ):
        hear(program, "ready")
        if verb == "enqueue":
            other.execute("BEGIN IMMEDIATE")  # and the enqueue waits for its end
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
        hear(program, "waiting")
        program.send_signal(signal.SIGINT)
        hear(program, "interrupted")
        other.close()
        status, said, err = finish(program)
    assert (status, err) == (0, "")
    assert said[-1] == ["cancelled", "True"]
    ids = acknowledged(said)
    assert len(ids) == 3
    assert set(ids) <= set(stored(url))
