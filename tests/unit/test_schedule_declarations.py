"""What code declares is checked where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from forge_jobs import ConfigError, HandlerRegistry, JobCtx, ScheduleDeclaration


def test_a_schedule_stands_above_its_handler() -> None:
    handlers = HandlerRegistry()

    @handlers.schedule("0 3 * * *", zone="Europe/Berlin")
    @handlers.schedule("@hourly", name="often", payload={"brief": True}, version=2)
    @handlers.handler("clean")
    async def clean(ctx: JobCtx) -> None: ...

    assert handlers.schedules() == [
        ScheduleDeclaration("clean", "clean", "0 3 * * *", zone="Europe/Berlin"),
        ScheduleDeclaration("often", "clean", "@hourly", {"brief": True}, version=2),
    ]


def test_a_name_again_replaces_it() -> None:
    handlers = HandlerRegistry()
    handlers.declare(ScheduleDeclaration("x", "elsewhere", "@daily"))
    handlers.declare(ScheduleDeclaration("x", "elsewhere", "@hourly"))
    assert [one.expr for one in handlers.schedules()] == ["@hourly"]


def test_below_the_handler_it_is_refused_with_what_to_do() -> None:
    handlers = HandlerRegistry()
    with pytest.raises(ConfigError, match=r"put @handlers.schedule\(…\) above @handlers.handler"):

        @handlers.schedule("@daily")
        async def clean(ctx: JobCtx) -> None: ...


@pytest.mark.parametrize(
    ("expr", "settings", "said"),
    [
        ("61 * * * *", {}, "minute '61'"),
        ("@daily", {"zone": "Mars"}, "zone 'Mars' is not known"),
        ("@daily", {"timezone": "UTC"}, "unknown key 'timezone'"),
        ("@daily", {"prioritty": 1}, "did you mean 'priority'"),
        ("@daily", {"name": "a b"}, "schedule name 'a b' is not legal"),
        ("@daily", {"payload": {1, 2}}, "payload"),
        ("@daily", {"version": -1}, "version -1"),
    ],
)
def test_a_bad_setting_is_refused_at_the_declaration(expr: str, settings: dict[str, Any], said: str) -> None:
    handlers = HandlerRegistry()

    @handlers.handler("clean")
    async def clean(ctx: JobCtx) -> None: ...

    with pytest.raises(ConfigError, match="schedule") as caught:
        handlers.schedule(expr, **settings)(clean)
    assert said in str(caught.value)
    assert handlers.schedules() == []
