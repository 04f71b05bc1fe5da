"""Annotations that are text at run time are looked up where the function was defined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from forge_jobs import ConfigError, HandlerRegistry
from forge_jobs.payload import Json
from forge_jobs.runtime.payloads import MsgspecReader, PayloadReader, PlainReader

if TYPE_CHECKING:
    from decimal import Decimal

    from forge_jobs import JobCtx


@dataclass
class Letter:
    to: str
    copy: str | None = None


class Sender:
    def __init__(self) -> None:
        self.sent: list[Letter] = []

    async def send(self, ctx: JobCtx, letter: Letter) -> None:
        self.sent.append(letter)


async def send(ctx: JobCtx, letter: Letter | None) -> None: ...


async def many(letters: list["Letter"]) -> None:  # noqa: UP037
    ...


async def swapped(letter: Letter, ctx: JobCtx) -> None: ...


async def plain(ctx: JobCtx, payload: dict[str, Any] | None) -> None: ...


async def json(ctx: JobCtx, payload: Json) -> None: ...


async def later(ctx: JobCtx, amount: Decimal) -> None: ...


def _reader(function: Any) -> PayloadReader:
    handlers = HandlerRegistry()
    handlers.handler("mail")(function)
    entry = handlers.get("mail")
    assert entry is not None
    return entry.reader


@pytest.mark.parametrize("function", [send, many, swapped, Sender().send])
def test_types_of_the_module_are_found(function: Any) -> None:
    assert isinstance(_reader(function), MsgspecReader)


@pytest.mark.parametrize("function", [plain, json])
def test_json_types_stay_json(function: Any) -> None:
    assert isinstance(_reader(function), PlainReader)


def test_a_type_that_the_function_closes_over_is_found() -> None:
    @dataclass
    class Local:
        n: int

    async def count(ctx: JobCtx, local: Local) -> int | None:
        return Local(local.n).n

    assert _reader(count).decode('{"n":1}') == Local(1)


def test_what_cannot_be_looked_up_is_refused_at_registration() -> None:
    with pytest.raises(ConfigError) as raised:
        _reader(later)
    assert str(raised.value).startswith(
        "the handler for kind 'mail': its payload's annotation 'Decimal' cannot be looked up: name 'Decimal' is not "
        "defined. Types of payloads must be importable when the program runs"
    )


class Bill(pydantic.BaseModel):
    amount: Decimal


@dataclass
class Parcel:
    weight: Decimal


def test_a_type_whose_own_annotations_cannot_be_looked_up_is_refused() -> None:
    async def ship(ctx: JobCtx, parcel: Parcel) -> None: ...

    async def bill(ctx: JobCtx, bill: Bill) -> None: ...

    with pytest.raises(ConfigError, match="a payload cannot be read into Parcel: name 'Decimal' is not defined"):
        _reader(ship)
    with pytest.raises(ConfigError, match="pydantic cannot read payloads into Bill: name 'Decimal' is not defined"):
        _reader(bill)
