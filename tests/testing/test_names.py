"""The public names of the kit, and what importing it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from forge_jobs import testing


def test_the_names_shown_to_type_checkers_are_those_that_are_imported_when_used() -> None:
    source = ast.parse(Path(testing.__file__).read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    shown = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert shown == {name: f"forge_jobs.testing.{home}" for name, home in testing._HOME_OF.items()}
    assert sorted(shown) == testing.__all__ == dir(testing)


@pytest.mark.parametrize("name", testing.__all__)
def test_a_name_is_the_thing_and_never_a_module(name: str) -> None:
    home = import_module(f"forge_jobs.testing.{testing._HOME_OF[name]}")
    assert getattr(testing, name) is getattr(home, name)
    assert callable(getattr(testing, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(testing, "Mock")


def test_importing_the_kit_imports_nothing_else() -> None:
    code = "import forge_jobs.testing, sys; print([m for m in ('asyncio', 'msgspec', 'pytest') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
