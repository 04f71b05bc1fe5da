"""Finding the handlers of a program by their path, `MODULE:REGISTRY`: for the command line and for child processes."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.storage.error import ConfigError


class NoRegistry(ConfigError):
    """The path leads to no registry. `hint` says more, if there is more to say."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def find_registry(target: str) -> HandlerRegistry:
    """The registry that `MODULE:REGISTRY` names, as the current `sys.path` finds it.

    Raises:
        NoRegistry: there is no such module or attribute, the module fails, or the attribute is not a registry.
    """
    module_name, path = split_path(target)
    found = _import(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            raise NoRegistry(f"module {module_name!r} has no {path!r}", _registries_in(module_name))
        found = getattr(found, name)
    if not isinstance(found, HandlerRegistry):
        kind = found.__name__ if isinstance(found, type) else type(found).__name__
        article = "the class" if isinstance(found, type) else "a"
        raise NoRegistry(f"{target} is {article} {kind}, not a HandlerRegistry", _registries_in(module_name))
    return found


def split_path(target: str) -> tuple[str, str]:
    """Module and registry of a path.

    Raises:
        NoRegistry: it is not of that form.
    """
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise NoRegistry(f"{target!r} is not of the form MODULE:REGISTRY, such as app:handlers")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise NoRegistry(f"{module_name!r} is a file; give the module: {dotted}:{path}")
    return module_name, path


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NoRegistry(
                f"there is no module {name!r}", f"looked in {os.getcwd()} and the installed packages"
            ) from error
        raise NoRegistry(f"importing {name} failed: {_last(error)}") from error
    except (Exception, SystemExit) as error:  # whatever somebody's module does when it is imported
        raise NoRegistry(f"importing {name} failed: {_last(error)}") from error


def _last(error: BaseException) -> str:
    """The error with the place in the application where it arose."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename and f.filename != __file__
    ]
    where = f" ({os.path.relpath(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _registries_in(module_name: str) -> str | None:
    names = [name for name, value in vars(sys.modules[module_name]).items() if isinstance(value, HandlerRegistry)]
    return f"it has the registry {' and '.join(names)}" if names else None
