"""What the pages show is what happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .page import ROOT, Block, blocks, name_of, pages

RUN = [page for page in pages() if any(block.language in ("python", "console") for block in blocks(page))]
FOREIGN = ("sqlalchemy", "django")


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.runner", str(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_only_what_is_not_installed_here_is_not_run(page: Path) -> None:
    for block in blocks(page):
        if "not run" in block.notes:
            assert block.notes["not run"], f"{name_of(page)}:{block.line} gives no reason"
            assert block.language == "python"
            assert any(name in block.text.lower() for name in FOREIGN)


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_has_a_language_and_commands_of_ours_are_run(page: Path) -> None:
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        assert block.language, f"{where}: no language"
        assert block.language != "sh" or "forge-jobs" not in block.text, f"{where}: use a console block, which is run"
        assert block.language != "console" or block.text.startswith("$ "), f"{where}: no command"


def test_the_quick_start_is_short_and_stands_in_one_file() -> None:
    quick_start = _first_python(ROOT / "README.md")
    assert quick_start.notes["file"] == "app.py"
    assert len(quick_start.text.splitlines()) <= 20


def _first_python(page: Path) -> Block:
    return next(block for block in blocks(page) if block.language == "python")
