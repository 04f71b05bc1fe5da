"""Handlers behind a hook and a middleware that change payloads as the payload itself asks.

Each ends its job `dead` with the payload that it got.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel, Field

from forge_jobs import CallNext, Dead, HandlerRegistry, JobCtx, JobOutcome

handlers = HandlerRegistry()
PATH: Final = f"{__name__}:handlers"


@dataclass
class Letter:
    to: str
    copies: int = 1


class ReadOnly(BaseModel):
    """Is read from what it cannot be written as."""

    secret: str = Field(exclude=True)


@handlers.before_run
async def in_place(ctx: JobCtx, payload: Any) -> None:
    if isinstance(payload, dict) and payload.get("do") == "in_place":
        payload["by"] = ["hook"]


@handlers.middleware
async def anew(ctx: JobCtx, payload: Any, call_next: CallNext) -> JobOutcome:
    if isinstance(payload, Letter):
        payload = replace(payload, copies=payload.copies + 1)
    elif isinstance(payload, ReadOnly) and payload.secret == "change":
        payload = ReadOnly(secret="changed")
    elif isinstance(payload, dict):
        match payload.get("do"):
            case "anew":
                payload = {**payload, "by": ["middleware"]}
            case "equal":
                payload = {**payload, "n": True}
            case "unwritable":
                payload = {"made": object()}
    return await call_next(ctx, payload)


def plain(ctx: JobCtx, payload: Any) -> Dead:
    return Dead(repr(payload))


def letter(payload: Letter) -> Dead:
    return Dead(repr(payload))


def read_only(payload: ReadOnly) -> Dead:
    return Dead(repr(payload))


for place in ("thread", "process"):
    for name, function in (("plain", plain), ("letter", letter), ("read_only", read_only)):
        handlers.handler(f"{place}.{name}", executor=place)(function)
