"""Adding jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forge_jobs import Storage
from forge_jobs.ids import JobId
from forge_jobs.storage.types.job import JobDetail
from forge_jobs.storage.types.queue import QueueChange

from .stage import Cli, in_store, program

ID = "01JH3V7M8Q2X4N5P6R7S8T9VWX"


def stored(job_id: str) -> JobDetail:
    async def work(storage: Storage) -> JobDetail:
        detail = await storage.jobs.get(JobId(job_id))
        assert detail is not None
        return detail

    return in_store(work)


def test_it_prints_the_outcome_and_the_id(cli: Cli) -> None:
    result = cli("enqueue", "mail", '{"to": "a@example.org"}')
    assert result.code == 0
    word, job_id = result.out.split()
    assert word == "enqueued"
    row = stored(job_id).row
    assert (row.kind, row.queue, row.payload, row.max_attempts) == ("mail", "default", {"to": "a@example.org"}, 5)


def test_every_option_reaches_the_job(cli: Cli) -> None:
    result = cli(
        *("enqueue", "mail", "null", "--queue", "post", "--priority", "-3", "--run-at", "2031-03-01T09:30:00+02:00"),
        *("--max-attempts", "9", "--dedupe-key", "k", "--unique-for", "2h", "--ttl", "7d", "--id", ID.lower()),
        *("--tag", "a", "--tag", "b", "--json"),
    )
    assert result.json == {"outcome": "enqueued", "id": ID, "repeated": False}
    row = stored(ID).row
    assert (row.queue, row.priority, row.max_attempts, row.dedupe_key, row.tags) == ("post", -3, 9, "k", ("a", "b"))
    assert row.payload is None
    assert row.scheduled_at.isoformat() == "2031-03-01T07:30:00+00:00"
    assert row.expires_at is not None
    assert round((row.expires_at - row.enqueued_at).total_seconds()) == 7 * 86_400


def test_max_attempts_of_the_settings_hold_for_requests_that_name_none(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_MAX_ATTEMPTS", "2")
    assert stored(cli("enqueue", "mail").out.split()[1]).row.max_attempts == 2


def test_a_payload_comes_from_a_file_or_from_stdin(here: Path, cli: Cli) -> None:
    (here / "p.json").write_text('{"n": 1}')
    assert stored(cli("enqueue", "mail", "@p.json").out.split()[1]).row.payload == {"n": 1}
    assert stored(program("enqueue", "mail", "-", stdin="[2]").out.split()[1]).row.payload == [2]


def test_a_held_key_is_deduped_with_the_holders_id(cli: Cli) -> None:
    holder = cli("enqueue", "mail", "--dedupe-key", "k").out.split()[1]
    again = cli("enqueue", "mail", "--dedupe-key", "k")
    assert (again.code, again.out) == (0, f"deduped {holder}\n")
    as_json = cli("enqueue", "mail", "--dedupe-key", "k", "--json")
    assert as_json.json == {"outcome": "deduped", "id": holder, "status": "pending"}
    refused = cli("enqueue", "mail", "--dedupe-key", "k", "--on-conflict", "error")
    assert (refused.code, refused.out) == (1, "")
    assert f"dedupe key 'k' is held by job {holder}" in refused.err
    replaced = cli("enqueue", "mail", "--dedupe-key", "k", "--on-conflict", "replace")
    assert replaced.out.startswith("enqueued")
    assert replaced.out.split()[1] != holder


def test_a_repeat_with_its_id_is_the_same_job(cli: Cli) -> None:
    assert cli("enqueue", "mail", "--id", ID).out == f"enqueued {ID}\n"
    assert cli("enqueue", "mail", "--id", ID, "--json").json["repeated"] is True
    other = cli("enqueue", "mail", '{"other": 1}', "--id", ID)
    assert other.code == 1
    assert "is taken by a job with other content" in other.err


def test_a_full_queue_is_a_failure(cli: Cli) -> None:
    cli("enqueue", "mail")

    async def bound(storage: Storage) -> None:
        await storage.queues.change("default", QueueChange(max_pending=1))

    in_store(bound)
    result = cli("enqueue", "mail")
    assert result.code == 1
    assert "max_pending is 1" in result.err


# A file of jobs


def write_lines(path: Path, *lines: object) -> None:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def total() -> int:
    async def work(storage: Storage) -> int:
        from forge_jobs.storage.types.job import JobFilter

        return sum((await storage.jobs.count(JobFilter())).values())

    return in_store(work)


def test_a_file_is_added_in_transactions_of_a_thousand_lines(here: Path, cli: Cli) -> None:
    write_lines(here / "jobs.jsonl", *({"kind": "mail", "payload": {"n": n}} for n in range(2_345)))
    result = cli("enqueue", "--bulk", "jobs.jsonl", "--json")
    assert result.json == {"lines": 2345, "enqueued": 2345, "repeated": 0, "deduped": 0}
    assert total() == 2345


def test_lines_carry_every_field(here: Path, cli: Cli) -> None:
    line = {
        "kind": "mail",
        "payload": [1],
        "queue": "post",
        "priority": 5,
        "max_attempts": 3,
        "dedupe_key": "k",
        "on_conflict": "skip",
        "unique_for": 60,
        "delay": "5m",
        "expires_at": "2031-01-01T00:00:00Z",
        "id": ID,
        "tags": ["t"],
        "trace": {"traceparent": "00-1"},
    }
    write_lines(here / "jobs.jsonl", "", line, {"kind": "plain"}, "")
    assert cli("enqueue", "--bulk", "jobs.jsonl", "--queue", "other").out == "enqueued 2\n"
    detail = stored(ID)
    row = detail.row
    assert (row.queue, row.priority, row.max_attempts, row.dedupe_key, row.tags) == ("post", 5, 3, "k", ("t",))
    assert (row.scheduled_at - row.enqueued_at).total_seconds() == 300
    assert row.expires_at is not None
    assert row.expires_at.isoformat() == "2031-01-01T00:00:00+00:00"
    assert detail.trace == {"traceparent": "00-1"}
    assert [item["queue"] for item in cli("jobs", "list", "--kind", "plain", "--json").json["items"]] == ["other"]


def test_a_bad_line_is_named_and_what_came_before_it_stays(here: Path, cli: Cli) -> None:
    lines: list[object] = [{"kind": "mail", "payload": {"n": n}} for n in range(1_500)]
    lines[1_204] = {"kind": "mail", "priority": "5"}
    write_lines(here / "jobs.jsonl", *lines)
    result = cli("enqueue", "--bulk", "jobs.jsonl")
    assert (result.code, result.out) == (2, "")
    assert "line 1205: priority '5' is a str" in result.err
    assert "lines 1 to 1000 are in the store; go on with --skip 1000" in result.err
    assert total() == 1_000

    lines[1_204] = {"kind": "mail", "priority": 5}
    write_lines(here / "jobs.jsonl", *lines)
    assert cli("enqueue", "--bulk", "jobs.jsonl", "--skip", "1000").out == "enqueued 500\n"
    assert total() == 1_500


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"kind": "mail", bad}', "line 2: not JSON: Expecting property name enclosed in double quotes at column 18"),
        ("[1]", "line 2: is a list, not an object"),
        ('{"payload": 1}', "line 2: the field `kind` is missing"),
        ('{"kind": "mail", "quue": "a"}', "line 2: unknown field 'quue'; did you mean 'queue'?"),
        ('{"kind": "mail", "kind": "mail"}', "line 2: key 'kind' stands twice"),
        ('{"kind": 5}', "line 2: kind name 5 is not legal"),
        ('{"kind": "mail", "delay": true}', "line 2: delay True is a bool"),
        ('{"kind": "mail", "delay": "soon"}', "line 2: duration 'soon' is not a number"),
        ('{"kind": "mail", "run_at": "2026-01-01T00:00:00"}', "line 2: '2026-01-01T00:00:00' has no time zone"),
        ('{"kind": "mail", "run_at": 5}', "line 2: run_at 5 is a int"),
        ('{"kind": "mail", "tags": "a"}', "line 2: tags 'a' must be a list"),
    ],
)
def test_what_a_line_may_not_hold(here: Path, cli: Cli, line: str, says: str) -> None:
    write_lines(here / "jobs.jsonl", {"kind": "mail"}, line)
    result = cli("enqueue", "--bulk", "jobs.jsonl")
    assert result.code == 2
    assert says in result.err
    assert "no line was added" in result.err
    assert not (here / "forge-jobs.db").exists()


def test_a_conflict_names_its_line(here: Path, cli: Cli) -> None:
    held = {"kind": "mail", "dedupe_key": "k", "on_conflict": "error"}
    write_lines(here / "jobs.jsonl", {"kind": "mail"}, held, {"kind": "mail"}, held)
    result = cli("enqueue", "--bulk", "jobs.jsonl")
    assert result.code == 1
    assert "line 4: dedupe key 'k' is held by job" in result.err
    assert total() == 0


def test_a_file_can_be_repeated_when_its_lines_carry_ids(here: Path, cli: Cli) -> None:
    write_lines(here / "jobs.jsonl", {"kind": "mail", "id": ID}, {"kind": "mail", "dedupe_key": "k"})
    assert cli("enqueue", "--bulk", "jobs.jsonl").out == "enqueued 2\n"
    assert cli("enqueue", "--bulk", "jobs.jsonl").out == "enqueued 0, repeated 1, deduped 1\n"


def test_atomic_is_all_or_nothing(here: Path, cli: Cli) -> None:
    write_lines(here / "jobs.jsonl", *({"kind": "mail"} for _ in range(1_200)), {"kind": "a b"})
    result = cli("enqueue", "--bulk", "jobs.jsonl", "--atomic")
    assert result.code == 2
    assert "line 1201: kind name 'a b'" in result.err
    assert "nothing was added" in result.err
    write_lines(here / "jobs.jsonl", *({"kind": "mail"} for _ in range(1_200)))
    assert cli("enqueue", "--bulk", "jobs.jsonl", "--atomic").out == "enqueued 1200\n"
    write_lines(here / "jobs.jsonl", *({"kind": "mail"} for _ in range(10_001)))
    result = cli("enqueue", "--bulk", "jobs.jsonl", "--atomic")
    assert result.code == 2
    assert "more than 10000 lines" in result.err
    assert total() == 1_200


def test_lines_come_from_stdin(cli: Cli) -> None:
    result = program("enqueue", "--bulk", "-", stdin='{"kind": "mail"}\n{"kind": "mail"}')
    assert (result.code, result.out) == (0, "enqueued 2\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mail", "--bulk", "f"], "a KIND or --bulk FILE, not both"),
        (["--bulk", "f", "--delay", "5m"], "--delay does not go with --bulk"),
        (["--bulk", "f", "--tag", "a"], "--tag does not go with --bulk"),
        (["--bulk", "missing.jsonl"], "missing.jsonl cannot be read"),
        (["mail", "--skip", "3"], "--skip goes with --bulk"),
        (["mail", "--atomic"], "--atomic goes with --bulk"),
    ],
)
def test_what_does_not_go_together(cli: Cli, arguments: list[str], says: str) -> None:
    result = cli("enqueue", *arguments)
    assert result.code == 2
    assert says in result.err
