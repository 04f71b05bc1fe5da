"""What hooks and middleware make of a payload is what the handler gets, also in a child process."""

from __future__ import annotations

from typing import Any

import pytest

from . import changing_handlers
from .world import World, scaled


async def got(world: World, kind: str, payload: Any) -> str:
    """What the handler got; or why it was not called."""
    world.handlers = changing_handlers.handlers
    await world.work(config=scaled(), registry=changing_handlers.PATH)
    detail = await world.when(await world.put(kind, payload, max_attempts=1), "dead", within_s=20)
    return detail.row.last_error or ""


@pytest.mark.parametrize("place", ["thread", "process"])
@pytest.mark.parametrize(
    ("kind", "payload", "seen"),
    [
        ("plain", {"do": "nothing", "n": 1}, "{'do': 'nothing', 'n': 1}"),
        ("plain", {"do": "in_place"}, "{'do': 'in_place', 'by': ['hook']}"),
        ("plain", {"do": "anew"}, "{'do': 'anew', 'by': ['middleware']}"),
        ("plain", {"do": "equal", "n": 1}, "{'do': 'equal', 'n': True}"),
        ("letter", {"to": "a"}, "Letter(to='a', copies=2)"),
        ("read_only", {"secret": "kept"}, "ReadOnly(secret='kept')"),
    ],
)
async def test_a_handler_gets_the_payload_that_its_middleware_made(
    world: World, place: str, kind: str, payload: Any, seen: str
) -> None:
    assert await got(world, f"{place}.{kind}", payload) == seen


@pytest.mark.parametrize(("kind", "payload"), [("plain", {"do": "unwritable"}), ("read_only", {"secret": "change"})])
async def test_what_cannot_be_given_to_a_child_fails_the_run_with_the_reason(
    world: World, kind: str, payload: Any
) -> None:
    text = await got(world, f"process.{kind}", payload)
    assert "a hook or middleware changed the payload into what a child process cannot be given" in text
