"""Every query that we ship or print names metrics that exist, with labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from forge_jobs.observe import COUNTS, HISTOGRAMS
from forge_jobs.prometheus.families import GAUGES, PREFIX, names

ROOT: Final = Path(__file__).resolve().parents[2]
BOARD: Final[dict[str, Any]] = json.loads((ROOT / "deploy/grafana/forge-jobs.json").read_text())
PAGE: Final = ROOT / "docs/how-to/monitor-with-prometheus.md"
OF_PROMETHEUS: Final = {"le", "instance", "job"}


def board_queries() -> Iterator[str]:
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def page_queries() -> Iterator[str]:
    for line in PAGE.read_text().splitlines():
        if PREFIX in line and not line.startswith(("While", PREFIX, "    print")):
            yield line.partition("expr: ")[2] or line.partition("query: ")[2] or line


def labels_of(metric: str) -> set[str]:
    name = metric.removeprefix(PREFIX)
    if name in GAUGES:
        return set(GAUGES[name].labels)
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    if base in HISTOGRAMS:
        return set(HISTOGRAMS[base].labels)
    return set(COUNTS[name.removesuffix("_total")].labels)


@pytest.mark.parametrize("query", [*board_queries(), *page_queries()])
def test_a_query_names_what_exists(query: str) -> None:
    metrics = set(re.findall(rf"{PREFIX}\w+", query))
    assert metrics
    assert metrics <= names()
    known = set().union(*map(labels_of, metrics)) | OF_PROMETHEUS
    matched = {name for braces in re.findall(r"\{([^}]*)\}", query) for name in re.findall(r"(\w+)\s*=~?", braces)}
    grouped = {name.strip() for by in re.findall(r"by \(([^)]*)\)", query) for name in by.split(",")}
    assert matched | grouped <= known
    assert query.count("(") == query.count(")")


def test_every_metric_is_on_the_board() -> None:
    shown = set(re.findall(rf"{PREFIX}\w+", " ".join(board_queries())))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in GAUGES else name for name in shown}
    expected = {f"{PREFIX}{name}_total" for name in COUNTS} | {PREFIX + name for name in (*GAUGES, *HISTOGRAMS)}
    assert expected - families == set()


def test_panels_have_titles_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert panel["title"]
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
