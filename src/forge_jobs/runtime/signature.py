"""What a function asks for by its parameters: the context, the payload and its type, resources."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from forge_jobs.storage.error import ConfigError


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that a caller must give by position."""
    return [
        one
        for one in inspect.signature(function).parameters.values()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
    ]


def resources_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the resources that it takes: its keyword-only parameters without a default."""
    return tuple(
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    )


def is_context(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is named `ctx` or annotated `JobCtx`, which may stand there as text."""
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return parameter.name == "ctx" or name.rpartition(".")[2] == "JobCtx"


def annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The annotation of the payload, with postponed ones looked up where the function was defined.

    Only this one is looked up, so that others may name what is imported for type checkers only.

    Raises:
        ConfigError: a name in it is not known there.
    """
    if parameter.annotation is parameter.empty:
        return Any
    plain: Any = inspect.unwrap(function)
    plain = getattr(plain, "__func__", plain)
    known = dict(getattr(plain, "__globals__", {}))
    code, cells = getattr(plain, "__code__", None), getattr(plain, "__closure__", None)
    for name, cell in zip(code.co_freevars if code is not None else (), cells or (), strict=False):
        try:
            known[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    holder = SimpleNamespace(__annotations__={"payload": parameter.annotation})
    try:
        return typing.get_type_hints(holder, globalns=known, include_extras=True)["payload"]
    except RecursionError:  # an alias of JSON that refers to itself
        return Any
    except Exception as error:
        raise ConfigError(
            f"its payload's annotation {_text(parameter.annotation)} cannot be looked up: {error}. "
            "Types of payloads must be importable when the program runs: define them at the top "
            "of a module and import them outside of `if TYPE_CHECKING:`"
        ) from error


def _text(annotation: object) -> str:
    return repr(annotation if isinstance(annotation, str) else str(annotation))
