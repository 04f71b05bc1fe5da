"""The conformance suite gives its users every test it has."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from forge_jobs.testing import conformance


def test_every_test_class_is_exported() -> None:
    modules = [
        importlib.import_module(f"{conformance.__name__}.{info.name}")
        for info in pkgutil.iter_modules(conformance.__path__)
    ]
    classes = {
        name
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isclass)
        if name.startswith("Test") and value.__module__ == module.__name__
    }
    assert classes == {name for name in conformance.__all__ if name.startswith("Test")}


def test_the_fixtures_are_exported() -> None:
    assert {"clock", "storage", "neighbour", "beater"} <= set(conformance.__all__)
