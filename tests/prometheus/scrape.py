"""Asking a worker's HTTP server, and reading what it says."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Got:
    """One answer."""

    status: int
    type: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def get(address: tuple[str, int], path: str, method: str = "GET") -> Got:
    """Ask once; errors of the server are answers too."""
    request = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return Got(answer.status, answer.headers["Content-Type"], answer.read().decode())
    except urllib.error.HTTPError as error:
        return Got(error.code, error.headers["Content-Type"] or "", error.read().decode())


class Scraped:
    """A text for Prometheus, read by the library's own parser."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))  # a counter and a gauge may share a name here

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample with these labels among others; None if there is none."""
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == f"forge_jobs_{name}" and labels.items() <= sample.labels.items()
        ]
        assert len(found) <= 1, found
        return found[0] if found else None

    def values(self, name: str) -> list[float]:
        """The samples of a family, in their order."""
        return [
            sample.value for family in self.families for sample in family.samples if sample.name == f"forge_jobs_{name}"
        ]

    def labels(self, name: str) -> list[Mapping[str, str]]:
        """The labels of every sample of a family."""
        return [
            sample.labels
            for family in self.families
            for sample in family.samples
            if sample.name == f"forge_jobs_{name}"
        ]
