"""The parts of the demo: corpus, upstream, results, plan and report."""

from __future__ import annotations

import io
import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from forge_jobs.demo import results
from forge_jobs.demo.corpus import Fate, choose, measure
from forge_jobs.demo.display import LiveDisplay, PlainDisplay, display_for
from forge_jobs.demo.plan import Plan, environment, timings_in_words
from forge_jobs.demo.report import percentile, print_report, report_document, summarise
from forge_jobs.demo.results import Result
from forge_jobs.demo.upstream import Answered, Budget, Upstream, read_log
from forge_jobs.demo.verdict import judge
from forge_jobs.demo.workspace import workspace

from .honest import HONEST


def test_the_corpus_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert choose(80, seed=1) == choose(80, seed=1)
    assert choose(80, seed=1) != choose(80, seed=2)
    assert len({file.path for file in choose(80, seed=1)}) == 80


def test_a_corpus_of_the_least_size_has_every_fate() -> None:
    assert set(Counter(file.fate for file in choose(60, seed=1))) == set(Fate)


def test_a_file_is_measured_by_lines_functions_and_top_level_imports() -> None:
    source = b"import os.path, json\nfrom . import near\nfrom a.b import c\nasync def f(): ...\ndef g(): ...\n"
    found = measure(source)
    assert (found.lines, found.functions, found.imports) == (5, 2, ("a", "json", "os"))


def test_a_file_that_does_not_parse_has_lines_only() -> None:
    assert measure(b"def (\n").functions == 0
    assert measure(b"def (\n").lines == 1


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    server = Upstream(choose(60, seed=1), budget=Budget(1_000, None), log=tmp_path / "log", slow_s=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def get(upstream: Upstream, path: str) -> tuple[int, bytes, dict[str, str]]:
    url = f"http://127.0.0.1:{upstream.server_port}{path}"
    request = urllib.request.Request(url, headers={"X-Job-Id": "J", "X-Job-Fence": "3"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read(), dict(refusal.headers)


def path_of(upstream: Upstream, fate: Fate) -> str:
    return next(path for path, file in upstream.files.items() if file.fate is fate)


def test_the_upstream_lists_its_files_page_by_page(upstream: Upstream) -> None:
    first, second = (json.loads(get(upstream, f"/files?page={n}")[1]) for n in (1, 2))
    assert (first["next"], first["pages"], second["next"]) == (2, 2, None)
    assert [file["path"] for file in first["files"] + second["files"]] == list(upstream.files)
    assert get(upstream, "/files?page=3")[0] == 404


def test_the_upstream_serves_each_file_as_its_fate_has_it(upstream: Upstream) -> None:
    plain, gone, flaky = (path_of(upstream, fate) for fate in (Fate.PLAIN, Fate.GONE, Fate.FLAKY))
    assert get(upstream, f"/files/{plain}")[:2] == (200, upstream.files[plain].location.read_bytes())
    assert [get(upstream, f"/files/{gone}")[0] for _ in range(2)] == [404, 404]
    assert [get(upstream, f"/files/{flaky}")[0] for _ in range(3)] == [500, 200, 200]
    assert get(upstream, "/files/../../etc/passwd")[0] == 404


def test_the_upstream_refuses_what_is_over_its_budget(upstream: Upstream) -> None:
    upstream.budget = Budget(per_s=0.5, stranger_after=None)
    first, (status, _, headers) = get(upstream, "/files"), get(upstream, "/files")
    assert (first[0], status, headers["Retry-After"]) == (200, 429, "2")


def test_another_client_takes_the_budget_after_so_many_answers(upstream: Upstream, tmp_path: Path) -> None:
    upstream.budget = Budget(per_s=1_000, stranger_after=2)
    assert [get(upstream, "/files")[0] for _ in range(3)] == [200, 200, 429]
    assert [line.stranger for line in read_log(tmp_path / "log")[0]] == [False, False, True]


def test_the_upstream_logs_every_answer_with_the_run_that_asked(upstream: Upstream, tmp_path: Path) -> None:
    gone = path_of(upstream, Fate.GONE)
    get(upstream, f"/files/{gone}")
    seen, offset = read_log(tmp_path / "log")
    get(upstream, "/files?page=1")
    more, _ = read_log(tmp_path / "log", offset)
    assert [replace(line, at=0) for line in seen + more] == [
        Answered(at=0, path=gone, page=0, status=404, job_id="J", fence=3, attempt=0),
        Answered(at=0, path="", page=1, status=200, job_id="J", fence=3, attempt=0),
    ]


def test_half_a_line_of_the_log_is_left_for_the_next_look(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"at": 1')
    assert read_log(log) == ([], 0)


def test_a_late_run_does_not_overwrite_the_result_of_a_newer_one(tmp_path: Path) -> None:
    table = tmp_path / "results.db"
    results.create(table)
    new = Result(job_id="J", kind="k", item="i", found={"by": "new"}, attempt=2, fence=3)
    late = replace(new, found={"by": "late"}, attempt=1, fence=1)
    for result in (late, new, late):
        results.store(table, result)
    assert results.read(table) == (replace(new, writes=2),)


def test_a_worker_gets_the_timings_and_no_settings_of_another_forge_jobs() -> None:
    given = environment({"PATH": "/bin", "FORGE_DATABASE_URL": "postgresql://elsewhere", "FORGE_STALE_S": "30"})
    assert (given["PATH"], given["FORGE_STALE_S"]) == ("/bin", "2")
    assert "FORGE_DATABASE_URL" not in given
    assert "stale_s 2 (default 30)" in timings_in_words()


def test_the_budget_follows_the_size_unless_given() -> None:
    assert [Plan().budget(files) for files in (60, 400, 1_000)] == [4, 26, 28]
    assert Plan(budget_per_s=9).budget(400) == 9


def test_a_temporary_workspace_goes_unless_told_to_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with workspace(None) as place:
        assert place.folder.parent == tmp_path
    assert not place.folder.exists()
    with workspace(None) as failed:
        failed.stays = True
    assert failed.folder.exists()


def test_a_workspace_that_was_asked_for_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), workspace(tmp_path / "kept") as place:
        place.folder.mkdir()
        raise KeyboardInterrupt
    assert place.folder.exists()


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([7.0], 0.99)) == (50, 99, 7)
    assert percentile([], 0.5) is None


def test_the_table_counts_each_kind() -> None:
    _, file, module = summarise(HONEST)
    assert (file.done, file.dead, file.throttled, file.retried, file.recovered) == (4, {"rejected": 1}, 1, 1, 1)
    assert (file.latency_p50_s, file.run_p99_s, file.per_second) == (2.0, 1.0, 2.5)
    assert (module.done, module.dead, module.recovered) == (2, {}, 0)


def test_the_report_says_which_checks_fail_and_how_many() -> None:
    page = io.StringIO()
    facts = replace(HONEST, finished=False)
    print_report(Console(file=page, width=120), facts, judge(facts))
    assert "✗ every job came to its end: 8 jobs, 0 jobs left; the time limit came first" in page.getvalue()
    assert "1 of 15 checks do not hold" in page.getvalue()
    lines = [line.strip("|").split("|") for line in page.getvalue().splitlines() if line.startswith("|")]
    rows = {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines}
    assert rows["kind"] == ["demo_list", "demo_file", "demo_module"]
    assert rows["dead"] == ["0", "1 rejected", "0"]
    assert rows["latency p50 / p99"] == ["2.0 s / 2.0 s"] * 3


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    page = io.StringIO()
    print_report(Console(file=page, width=80, force_terminal=True), HONEST, judge(HONEST))
    assert "…" not in page.getvalue()


def test_the_report_is_one_json_document_too() -> None:
    document = json.loads(json.dumps(report_document(HONEST, judge(HONEST))))
    assert (document["ok"], document["took_s"], len(document["kinds"]), len(document["checks"])) == (True, 20, 3, 15)


def test_a_pipe_gets_lines_and_a_terminal_a_live_picture() -> None:
    assert isinstance(display_for(Console(file=io.StringIO())), PlainDisplay)
    assert isinstance(display_for(Console(file=io.StringIO(), force_terminal=True)), LiveDisplay)
