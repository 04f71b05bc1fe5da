"""Handlers that come with the project. None is registered by itself.

from forge_jobs.handlers import CmdExec, WorkerPool

handlers.register(WorkerPool("resize", ["node", "resize.js"], size=4))
handlers.register(CmdExec(programs={"backup": "/usr/local/bin/backup"}))
"""

from forge_jobs.runtime.handlers.cmd_exec import CmdExec
from forge_jobs.runtime.handlers.noop_echo import NoopEcho
from forge_jobs.runtime.handlers.worker_pool import WorkerPool

__all__ = ["CmdExec", "NoopEcho", "WorkerPool"]
