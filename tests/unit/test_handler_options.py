"""Options of a handler are checked when it is registered, not when its first job fails."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import ConfigError, HandlerRegistry, JobCtx
from forge_jobs.runtime.executors.executor import Executor, is_coroutine_function


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("timeout", "30"),
        ("timeout", True),
        ("timeout", 0),
        ("timeout", timedelta(days=200)),
        ("cancel_grace", "5"),
        ("cancel_grace", -5),
        ("backoff", "abc"),
        ("backoff", []),
        ("backoff", [-1]),
        ("backoff", [10**400]),
        ("backoff", 5),
        ("retry_on", "ValueError"),
        ("retry_on", [ValueError, "KeyError"]),
        ("dead_on", 5),
        ("max_attempts", 0),
        ("max_attempts", True),
        ("max_crashes", 101),
        ("queue", "no spaces"),
        ("bad_payload", "retry"),
        ("redact", [5]),
    ],
)
def test_an_option_that_cannot_work_is_refused_at_registration(option: str, value: Any) -> None:
    handlers = HandlerRegistry()
    with pytest.raises(Exception, match=option if option != "queue" else "queue name"):
        handlers.handler("mail", **{option: value})(_handler)
    assert len(handlers) == 0


def test_an_unknown_option_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'timeout'"):
        HandlerRegistry().handler("mail", timout=3)(_handler)


def test_single_exception_classes_and_lists_are_taken() -> None:
    handlers = HandlerRegistry()
    handlers.handler("one", retry_on=OSError, dead_on=[ValueError, KeyError])(_handler)
    entry = handlers.get("one")
    assert entry is not None
    assert entry.options.retry_on == (OSError,)
    assert entry.options.dead_on == (ValueError, KeyError)
    handlers.handler("two", redact=["iban"])(_handler)
    entry = handlers.get("two")
    assert entry is not None
    assert entry.options.redact == ("iban",)
    handlers.handler("three", redact="iban")(_handler)
    entry = handlers.get("three")
    assert entry is not None
    assert entry.options.redact == ("iban",)


def test_the_executor_fits_the_function_unless_another_is_asked_for() -> None:
    handlers = HandlerRegistry()
    handlers.handler("looped")(_handler)
    handlers.handler("plain")(lambda ctx, payload: None)
    handlers.handler("child", executor="process")(lambda ctx, payload: None)
    found = {kind: entry.executor for kind in handlers.kinds() if (entry := handlers.get(kind)) is not None}
    assert found == {"looped": Executor.ASYNC, "plain": Executor.THREAD, "child": Executor.PROCESS}


class _Callable:
    async def __call__(self, payload: object) -> None: ...


def test_an_async_function_is_known_in_every_guise() -> None:
    assert is_coroutine_function(functools.partial(_handler))
    assert is_coroutine_function(_Callable())
    assert is_coroutine_function(_Callable().__call__)
    assert not is_coroutine_function(lambda: _handler)
    assert not is_coroutine_function(functools.partial(print))


async def _handler(ctx: JobCtx) -> None: ...
