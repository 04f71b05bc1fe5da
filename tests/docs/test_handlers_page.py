"""The page on handlers names every option and every hook there is."""

from __future__ import annotations

import dataclasses
import re

from forge_jobs.runtime.handler_options import HandlerOptions
from forge_jobs.runtime.hooks import Hooks

from .page import ROOT

PAGE = (ROOT / "docs/reference/handlers.md").read_text()


def test_every_option_is_in_the_table() -> None:
    options = PAGE.partition("## Options")[2].partition("## Hooks")[0]
    named = {name for row in re.findall(r"(?m)^\| (`[^|]*`) \|", options) for name in re.findall(r"`(\w+)`", row)}
    assert named == {field.name for field in dataclasses.fields(HandlerOptions) if field.init}


def test_every_hook_is_in_the_table() -> None:
    named = set(re.findall(r"(?m)^\| `@handlers\.(\w+)`", PAGE))
    assert named == {name for name in vars(Hooks) if not name.startswith("_")} - {"resources", "run"}
