"""Handlers with children, for workers that are killed and stopped under them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from forge_jobs import HandlerRegistry
from forge_jobs.handlers import CmdExec, WorkerPool

RUDE: Final = Path(__file__).parents[1] / "runtime" / "workers" / "rude.py"

handlers = HandlerRegistry()
handlers.register(WorkerPool("rude", [sys.executable, "-I", str(RUDE)], size=2))
handlers.register(CmdExec(allow_any=True))
