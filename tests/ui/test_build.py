"""The dashboard gets into the wheel, with Node on the machine or without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = {"node", "nodejs", "npm", "npx", "corepack"}


def checkout(to: Path) -> Path:
    """What git has of the project, without anything that was built."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    (to / ".git").mkdir()  # so that the hook takes it for one
    return to


def path_without_node(folder: Path) -> str:
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for tool in Path(place).glob("*") if Path(place).is_dir() else ():
            if tool.name not in NODE and not (folder / tool.name).exists():
                (folder / tool.name).symlink_to(tool)
    return str(folder)


def wheel(project: Path, **environment: str) -> set[str]:
    """The names in the wheel that pip makes of it."""
    out = project / "out"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", str(out), "."],
        cwd=project,
        env={**os.environ, **environment},
        check=True,
        timeout=300,
    )
    (found,) = out.glob("*.whl")
    return set(zipfile.ZipFile(found).namelist())


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_wheel_from_a_checkout_has_the_dashboard_though_there_is_no_node(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    project = checkout(tmp_path / "project")
    names = wheel(project, FORGE_UI="require", PATH=path_without_node(tmp_path / "bin"))
    assert "forge_jobs/ui/static/index.html" in names
    assert any(name.startswith("forge_jobs/ui/static/assets/") for name in names)


@pytest.mark.slow
def test_the_dashboard_can_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    names = wheel(checkout(tmp_path / "project"), FORGE_UI="skip")
    assert "forge_jobs/ui/__init__.py" in names
    assert not any("static" in name for name in names)
