"""Finding the handlers that a command line names as `MODULE:REGISTRY`."""

from __future__ import annotations

import os
import sys

from forge_jobs.cli.errors import Usage
from forge_jobs.runtime.find_registry import NoRegistry, find_registry
from forge_jobs.runtime.handler import HandlerRegistry


def load_registry(target: str) -> HandlerRegistry:
    """The registry that `MODULE:REGISTRY` names; modules of the current directory come first.

    Raises:
        Usage: there is no such module or attribute, the module fails, or the attribute is not a registry.
    """
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return find_registry(target)
    except NoRegistry as error:
        own_fault = error.__cause__ is not None and not isinstance(error.__cause__, ModuleNotFoundError)
        raise Usage(str(error), "--debug shows the traceback" if own_fault else error.hint) from error
