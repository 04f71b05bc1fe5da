"""Shapes that many routes share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from forge_jobs import limits
from forge_jobs.clock import NaiveTime, parse_instant

T = TypeVar("T")


class Shown(BaseModel):
    """Something in an answer."""

    model_config = ConfigDict(extra="forbid")


class Given(BaseModel):
    """Something in a request: what is not known is refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Asked(BaseModel):
    """The parameters of a query, which come as text."""

    model_config = ConfigDict(extra="forbid")


class ProblemModel(Shown):
    """Why a request was refused (RFC 9457). Branch on `code`; `detail` is for people. `current`, with 412, is what the
    settings are now, with their `etag`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    field: str | None = None
    reason: str | None = None
    current: Any = None


class Page(Shown, Generic[T]):
    """Part of a list. `next_cursor` asks for the next part, null on the last. `total` is the true number; where a
    search takes too long to count, it is null and `total_at_least` says how many there are at least."""

    items: list[T]
    next_cursor: str | None
    total: int | None
    total_at_least: int | None = None


class _Reason(ValueError):
    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise _Reason("must be text, an RFC 3339 instant such as 2026-03-01T09:30:00Z", "invalid_type")
    try:
        return parse_instant(value)
    except NaiveTime as error:
        raise _Reason(str(error), "naive_time") from None
    except ValueError as error:
        raise _Reason(str(error), "invalid_time") from None


def _whole(value: Any) -> Any:
    """Digits only: no `1e3`, no `1_0`, no blanks."""
    if isinstance(value, str) and not (value.isascii() and value.removeprefix("-").isdigit()):
        raise _Reason("must be a whole number", "invalid_type")
    return int(value) if isinstance(value, str) and len(value) < 20 else value


Instant = Annotated[datetime, BeforeValidator(_instant), Field(json_schema_extra={"format": "date-time"})]
Name = Annotated[
    str,
    Field(
        json_schema_extra={
            "pattern": rf"^[A-Za-z0-9_][A-Za-z0-9_.:-]{{0,{limits.NAME_LENGTH - 1}}}$",
            "minLength": 1,
            "maxLength": limits.NAME_LENGTH,
        }
    ),
]
"""A name of a queue, kind, schedule or scope; checked where all of them are."""
WholeText = Annotated[int, BeforeValidator(_whole)]
Limit = Annotated[WholeText, Field(ge=1, le=limits.PAGE, description="At most this many.")]
Cursor = Annotated[str, Field(max_length=512, description="`next_cursor` of the page before.")]


class PageQuery(Asked):
    """Which part of a list."""

    limit: Limit = 50
    cursor: Cursor | None = None
