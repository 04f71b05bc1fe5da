"""The public names: each is importable, and what type checkers see is what is there at run time."""

import ast
import subprocess
import sys
from pathlib import Path

import forge_jobs


def test_every_public_name_is_importable() -> None:
    for name in forge_jobs.__all__:
        assert getattr(forge_jobs, name) is not None


def test_type_checkers_are_shown_the_names_that_exist() -> None:
    source = ast.parse(Path(forge_jobs.__file__).read_text())
    block = next(node for node in source.body if isinstance(node, ast.If))
    shown = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert shown == forge_jobs._HOME_OF
    assert set(shown) == set(forge_jobs.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(forge_jobs, "Task")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import forge_jobs, sys; print([m for m in ('asyncio', 'msgspec', 'ulid', 'sqlite3') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
