"""With OpenTelemetry in both programs, an enqueue and what it leads to are one trace, across processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

TESTS: Final = Path(__file__).parents[1]


class Said:
    """The spans of one program by name, and what its handlers saw."""

    def __init__(self, text: str) -> None:
        every = [json.loads(line) for line in text.splitlines()]
        self.spans = [one for one in every if "name" in one]
        self.seen = [one for one in every if "seen" in one]

    def all(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"] == name]

    def one(self, name: str) -> dict[str, Any]:
        (span,) = self.all(name)
        return span


def program(folder: Path, command: str, runs: str = "child") -> Said:
    argv = (sys.executable, "-W", "error", "-m", "process.traced", command, f"sqlite:///{folder}/jobs.db", runs)
    done = subprocess.run(argv, cwd=TESTS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return Said(done.stdout)


def test_enqueue_run_and_follow_ups_are_one_trace(tmp_path: Path) -> None:
    web, worker = program(tmp_path, "enqueue"), program(tmp_path, "work")
    request, enqueue = web.one("request"), web.one("enqueue parent")
    run, own, follow_ups = worker.one("run parent"), worker.one("own work"), worker.all("enqueue child")
    assert {span["trace"] for span in (*web.spans, *worker.spans)} == {request["trace"]}
    assert (enqueue["parent"], run["parent"]) == (request["id"], enqueue["id"])
    assert {span["parent"] for span in follow_ups} == {own["id"], run["id"]}
    assert {span["parent"] for span in worker.all("run child")} == {span["id"] for span in follow_ups}
    assert (enqueue["kind"], run["kind"], run["status"]) == ("PRODUCER", "CONSUMER", "UNSET")


def test_spans_say_which_job_they_are_of(tmp_path: Path) -> None:
    web, worker = program(tmp_path, "enqueue"), program(tmp_path, "work")
    enqueue, run = web.one("enqueue parent")["attributes"], worker.one("run parent")["attributes"]
    (line,) = [one for one in worker.seen if one["seen"] == "line"]
    job_id = line["job_id"]
    assert enqueue == {
        "messaging.system": "forge_jobs",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.destination.name": "default",
        "messaging.message.id": job_id,
        "forge_jobs.kind": "parent",
    }
    assert run.pop("forge_jobs.wait_s") > 0
    assert run == {
        "messaging.system": "forge_jobs",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": job_id,
        "forge_jobs.kind": "parent",
        "forge_jobs.attempt": 1,
        "forge_jobs.fence": 1,
        "forge_jobs.outcome": "done",
    }


def test_a_run_has_its_claim_and_its_settlement_as_children(tmp_path: Path) -> None:
    program(tmp_path, "enqueue")
    worker = program(tmp_path, "work")
    run = worker.one("run parent")
    (claim,) = [span for span in worker.all("claim") if span["parent"] == run["id"]]
    (settle,) = [span for span in worker.all("settle") if span["parent"] == run["id"]]
    assert {claim["trace"], settle["trace"], run["trace"]} == {run["trace"]}
    assert claim["times"][0] <= claim["times"][1] <= run["times"][0]
    assert run["times"][1] <= settle["times"][0] <= settle["times"][1]
    assert (claim["kind"], settle["kind"]) == ("CLIENT", "CLIENT")
    assert claim["attributes"]["messaging.batch.message_count"] == 1
    assert settle["attributes"].pop("messaging.batch.message_count") >= 1  # its follow-ups may end along with it
    assert settle["attributes"] == {
        "messaging.system": "forge_jobs",
        "messaging.operation.name": "settle",
        "messaging.operation.type": "settle",
        "forge_jobs.result": "repeated",  # its own transaction has ended it
    }
    for child in worker.all("run child"):
        names = sorted(span["name"] for span in worker.spans if span["parent"] == child["id"])
        assert names == ["claim", "settle"]


def test_log_lines_name_the_span_at_hand_and_only_allowed_baggage_travels(tmp_path: Path) -> None:
    program(tmp_path, "enqueue")
    worker = program(tmp_path, "work")
    line, carried = sorted(worker.seen, key=lambda one: str(one["seen"]), reverse=True)
    run = worker.one("run parent")
    assert (int(line["trace_id"], 16), int(line["span_id"], 16)) == (run["trace"], run["id"])
    assert carried == {"seen": "baggage", "tenant": "acme"}


def test_a_run_may_be_a_trace_of_its_own_with_a_link(tmp_path: Path) -> None:
    web, worker = program(tmp_path, "enqueue"), program(tmp_path, "work", "link")
    enqueue, run = web.one("enqueue parent"), worker.one("run parent")
    assert (run["parent"], run["links"]) == (None, [enqueue["id"]])
    assert run["trace"] != enqueue["trace"]


def test_a_bulk_is_one_span_that_all_its_runs_belong_to(tmp_path: Path) -> None:
    web, worker = program(tmp_path, "bulk"), program(tmp_path, "work")
    enqueue = web.one("enqueue child")
    assert enqueue["attributes"]["messaging.batch.message_count"] == 3
    assert [span["parent"] for span in worker.all("run child")] == [enqueue["id"]] * 3


def test_a_failed_run_is_an_error_with_its_exception(tmp_path: Path) -> None:
    program(tmp_path, "bad")
    run = program(tmp_path, "work").one("run bad")
    assert (run["status"], run["events"]) == ("ERROR", ["exception"])
    assert (run["attributes"]["forge_jobs.outcome"], run["attributes"]["error.type"]) == ("failed", "ValueError")


def test_a_trace_goes_on_behind_a_worker_that_makes_no_spans(tmp_path: Path) -> None:
    web = program(tmp_path, "enqueue")
    assert program(tmp_path, "work", "off").all("run parent") == []
    code = (
        "import asyncio, sys; from forge_jobs import *\n"
        "async def main():\n"
        "    async with open_storage(sys.argv[1]) as storage:\n"
        "        for row in (await storage.jobs.list_jobs(JobFilter(kinds=('child',)))).items:\n"
        "            print((await storage.jobs.get(row.id)).trace['traceparent'])\n"
        "asyncio.run(main())"
    ).replace("import *", "import open_storage; from forge_jobs.storage.types.job import JobFilter")
    done = subprocess.run(
        (sys.executable, "-c", code, f"sqlite:///{tmp_path}/jobs.db"), capture_output=True, text=True, timeout=60
    )
    enqueue = web.one("enqueue parent")
    parents = [line.split("-") for line in done.stdout.split()]
    assert [(int(parts[1], 16), int(parts[2], 16)) for parts in parents] == [(enqueue["trace"], enqueue["id"])] * 2


@pytest.mark.parametrize("imported", ["", "import opentelemetry.trace; "])
def test_a_program_without_a_provider_records_and_imports_nothing(tmp_path: Path, imported: str) -> None:
    code = (
        f"{imported}import asyncio, sys\n"
        "from forge_jobs import EnqueueRequest, HandlerRegistry, QueueRuntime, open_storage\n"
        "handlers = HandlerRegistry()\n"
        "@handlers.handler('k')\n"
        "async def k(ctx): ctx.log.warning('said')\n"
        "async def main():\n"
        "    async with open_storage(sys.argv[1]) as storage:\n"
        "        job = await storage.jobs.enqueue(EnqueueRequest('k', queue='default'))\n"
        "        await QueueRuntime(storage, handlers).drain()\n"
        "        print((await storage.jobs.get(job.id)).trace)\n"
        "asyncio.run(main())\n"
        "print('opentelemetry.baggage' in sys.modules)"
    )
    done = subprocess.run(
        (sys.executable, "-c", code, f"sqlite:///{tmp_path}/jobs.db"), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["None", "False"], done.stderr
    assert done.stderr == "said\n"
