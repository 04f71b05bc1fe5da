"""Pages that are taken from the code are up to date, and pages name what exists."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import forge_jobs
from forge_jobs import ConfigError, RuntimeConfig, StoreConfig
from forge_jobs.bench.measures import names_on
from forge_jobs.storage.open import Backend

from .page import ROOT, anchors, blocks, links, name_of, pages, tables


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_up_to_date(generator: ModuleType) -> None:
    assert generator.outdated() == [], "run python docs/generate.py"


def test_the_bounds_on_the_page_are_the_bounds_in_force() -> None:
    (titles, *rows), *_ = tables(ROOT / "docs/reference/configuration.md")
    key, legal = titles.index("key"), titles.index("legal values")
    numbers = {row[key].strip("`"): row[legal].replace(" ", " ").split(" … ") for row in rows if "…" in row[legal]}
    runtime = set(RuntimeConfig.__dataclass_fields__)
    relaxed = {"heartbeat_s": 0.01, "reaper_s": 0.01, "stale_s": 86_400}
    assert len(numbers) > 10
    for name, (low, high) in numbers.items():
        kind: Any = RuntimeConfig if name in runtime else StoreConfig
        base = relaxed if kind is RuntimeConfig else {}
        for text, beyond in ((low, -1), (high, 1)):
            number = float(text.replace(" ", ""))
            value = int(number) if number == int(number) else number
            if name != "stale_s" or beyond > 0:
                kind(**{**base, name: value})
            with pytest.raises(ConfigError, match=name):
                kind(**{**base, name: value + beyond})


def test_every_public_error_has_its_section() -> None:
    errors = {name for name in forge_jobs.__all__ if _is_error(getattr(forge_jobs, name))}
    told = {line[3:] for line in (ROOT / "docs/reference/errors.md").read_text().splitlines() if line.startswith("## ")}
    assert errors == told


def test_every_test_that_a_guarantee_names_exists() -> None:
    sources = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("src/forge_jobs/testing/**/*.py")]
    known = {name for path in sources for name in re.findall(r"def (test_\w+)", path.read_text())}
    (_titles, *rows), *_ = tables(ROOT / "docs/reference/guarantees.md")
    assert len(rows) > 15
    for guarantee, tests in rows:
        named = re.findall(r"`(test_\w+)`", tests)
        assert named, guarantee
        assert set(named) <= known, set(named) - known


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_somewhere(page: Any) -> None:
    for target in links(page):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(goal), f"{name_of(page)}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, front = set(), [ROOT / "README.md"]
    while front:
        page = front.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        front += [(page.parent / target.partition("#")[0]).resolve() for target in links(page) if ":" not in target]
    assert {name_of(page) for page in pages()} <= {name_of(page) for page in seen if ROOT in page.parents}


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_pages_name_no_place_of_one_machine(page: Any) -> None:
    assert not re.search(r"/(root|work|tmp/bench\w*)/", page.read_text())


@pytest.mark.parametrize(
    ("backend", "name", "settings", "command"),
    [
        ("sqlite", "SQLite", {"synchronous": "FULL"}, "`forge-jobs bench --only drain`"),
        ("postgresql", "PostgreSQL", {"fsync": "on"}, "`forge-jobs bench --backend postgres --only drain`"),
    ],
)
def test_the_numbers_of_a_backend_can_be_put_into_the_readme(
    generator: ModuleType, tmp_path: Path, backend: str, name: str, settings: dict[str, str], command: str
) -> None:
    run = {
        "environment": {
            "backend": backend, "settings": settings,
            "taken_at": "2026-11-23T00:00:00Z", "cpu": "x", "cores": 2, "load": [0.1, 0.2, 0.3], "file_system": "ext4",
            "versions": {"python": "3.11", backend: "3.40"}, "durability": "full", "jobs": 50_000, "repeat": 3,
        },
        "results": [{"name": "drain", "value": 12_345.6, "unit": "jobs/s", "ratio": 0.5}],
    }  # fmt: skip
    page, document = tmp_path / "README.md", tmp_path / "run.json"
    page.write_text((ROOT / "README.md").read_text())
    document.write_text(json.dumps(run))
    generator.write_numbers(page, document)
    assert table_of(generator, page, backend).count("| 12 346 jobs/s | 0.50 | " + command) == 1
    assert f"{name} 3.40, durability `full` (`{'='.join(*settings.items())}`)" in table_of(generator, page, backend)
    for other in set(generator.NUMBERS) - {backend}:
        assert table_of(generator, page, other) == table_of(generator, ROOT / "README.md", other)


def test_every_number_of_a_backend_has_a_line_for_the_readme_or_is_for_orientation(generator: ModuleType) -> None:
    for backend in Backend:
        assert set(names_on(backend)) - set(generator.NUMBERS[backend.value]) <= {
            "raw_drain_16col",
            "raw_enqueue_16col",
        }


def test_the_readme_has_a_table_of_numbers(generator: ModuleType) -> None:
    assert "| measure | value | ratio to raw limit | command |" in table_of(generator, ROOT / "README.md", "sqlite")


def table_of(generator: ModuleType, page: Path, backend: str) -> str:
    """What stands between the marks of a backend."""
    begin, end = generator.marks(backend)
    text = page.read_text()
    assert begin in text
    assert end in text
    return text.partition(begin)[2].partition(end)[0]


def test_examples_in_pages_are_fenced_properly() -> None:
    for page in pages():
        assert page.read_text().count("\n```") == 2 * len(blocks(page)), name_of(page)


def _is_error(value: object) -> bool:
    from forge_jobs.storage import error

    return isinstance(value, type) and value.__module__ == error.__name__
