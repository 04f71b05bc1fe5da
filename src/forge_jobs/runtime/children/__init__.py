"""Child processes of a worker: each in a group of its own, none outlives the worker.

    children = Children()
    child = await children.start(["/usr/bin/convert", "a.png", "b.jpg"], env=environment())
    exit = await child.wait()
    await child.end()          # the whole group: SIGTERM, 2 s, SIGKILL
    await children.close()

`guard.py` is a small program beside the worker which starts and watches them; it says why.
"""

from forge_jobs.runtime.children.child import Child, Exit
from forge_jobs.runtime.children.children import ChildError, Children
from forge_jobs.runtime.children.environment import environment
from forge_jobs.runtime.children.pipes import Inlet, Outlet

__all__ = ["Child", "ChildError", "Children", "Exit", "Inlet", "Outlet", "environment"]
