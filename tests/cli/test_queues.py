"""Queues and their knobs."""

from __future__ import annotations

from forge_jobs import Storage
from forge_jobs.storage.types.finalize import Throttled
from forge_jobs.storage.types.queue import QueueSettings

from .stage import Cli, add, claim, finish, in_store


def settings(name: str = "default") -> QueueSettings:
    async def work(storage: Storage) -> QueueSettings:
        found = await storage.queues.get(name)
        assert found is not None
        return found

    return in_store(work)


def test_the_list_has_settings_and_counts(cli: Cli) -> None:
    add()
    add(delay=60)
    add(queue="other")
    page = cli("queues", "list", "--json").json
    assert (page["total"], page["next_cursor"]) == (2, None)
    first = page["items"][0]
    assert (first["name"], first["max_workers"], first["retain_done_days"]) == ("default", None, 7)
    assert first["backoff"] == {"enabled": True, "base_s": 5, "cap_s": 1800, "jitter": 0.1}
    assert (first["counts"]["pending"], first["counts"]["ready"], first["counts"]["scheduled"]) == (2, 1, 1)
    table = cli("queues", "list")
    assert table.lines[0].startswith("QUEUE")
    assert table.lines[1].split()[:4] == ["default", "open", "1", "1"]
    assert len(cli("queues", "list", "--jsonl").lines) == 2


def test_set_changes_what_is_given_and_prints_what_is_stored(cli: Cli) -> None:
    add()
    result = cli(
        *("queues", "set", "default", "--max-workers", "4", "--max-pending", "100", "--retain-done", "0.5"),
        *("--retain-dead", "none", "--backoff-base", "30s", "--backoff-cap", "1h", "--backoff-jitter", "0.2"),
        *("--no-backoff", "--no-cool-down", "--json"),
    )
    assert result.code == 0
    stored = settings()
    assert (stored.max_workers, stored.max_pending, stored.cool_down) == (4, 100, False)
    assert (stored.retain_done_days, stored.retain_dead_days) == (0.5, None)
    backoff = stored.backoff
    assert (backoff.enabled, backoff.base_s, backoff.cap_s, backoff.jitter) == (False, 30, 3600, 0.2)
    assert result.json["max_workers"] == 4
    cli("queues", "set", "default", "--max-workers", "none", "--retain-dead", "12h", "--backoff")
    stored = settings()
    assert (stored.max_workers, stored.max_pending, stored.retain_dead_days) == (None, 100, 0.5)
    assert stored.backoff.enabled


def test_a_value_beyond_a_limit_is_brought_to_it_and_that_is_said(cli: Cli) -> None:
    add()
    result = cli("queues", "set", "default", "--max-workers", "20000")
    assert result.code == 0
    assert "max_workers 20000 is beyond its limit; stored as 10000" in result.err
    assert settings().max_workers == 10_000


def test_pause_and_resume_say_whether_they_changed_anything(cli: Cli) -> None:
    add()
    assert cli("queues", "pause", "default").out == "default paused\n"
    assert cli("queues", "pause", "default").out == "default already paused\n"
    assert settings().paused
    assert "paused" in cli("queues", "list").lines[1]
    assert cli("queues", "resume", "default", "--json").json["changed"] is True
    assert cli("queues", "resume", "default").out == "default was not paused\n"
    assert not settings().paused


def test_pause_without_signal_leaves_running_jobs_alone(cli: Cli) -> None:
    add()
    cli("queues", "pause", "default", "--no-signal")
    assert not settings().pause_signal
    cli("queues", "pause", "default")
    assert settings().pause_signal


def test_clear_cool_down(cli: Cli) -> None:
    from datetime import timedelta

    add()
    finish(claim(), Throttled(delay=timedelta(minutes=5), hinted=True))
    assert "cooling" in cli("queues", "list").lines[1]
    assert cli("queues", "clear-cool-down", "default").out == "default cool-down cleared\n"
    assert settings().throttled_until is None
    assert cli("queues", "clear-cool-down", "default").out == "default was not cooling down\n"


def test_delete_removes_only_a_queue_without_jobs(cli: Cli) -> None:
    job_id = add()
    refused = cli("queues", "delete", "default", "--yes")
    assert refused.code == 1
    assert "still has jobs" in refused.err
    cli("jobs", "delete", job_id)
    assert cli("queues", "delete", "default", "--yes").out == "default deleted\n"
    assert cli("queues", "list", "--json").json["total"] == 0


def test_an_unknown_queue_is_a_failure(cli: Cli) -> None:
    add()
    for command in (["set", "x", "--max-workers", "1"], ["pause", "x"], ["resume", "x"], ["clear-cool-down", "x"]):
        result = cli("queues", *command)
        assert (result.code, result.out) == (1, ""), command
        assert "there is no queue 'x'" in result.err
    assert cli("queues", "delete", "x", "--yes").code == 1
