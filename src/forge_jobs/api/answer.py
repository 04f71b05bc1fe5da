"""Answers: JSON with instants as RFC 3339, and problems."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from starlette.responses import JSONResponse, Response

from forge_jobs.api.problem import Problem, document
from forge_jobs.clock import format_instant


class Json(JSONResponse):
    """A JSON document."""

    def render(self, content: Any) -> bytes:
        return encode(content)


class Download(JSONResponse):
    """JSON text to be saved as `name`, never shown: a browser that is told otherwise finds itself in a sandbox."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(
            text,
            headers={
                "Content-Disposition": f'attachment; filename="{name}"',
                "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
            },
        )

    def render(self, content: Any) -> bytes:
        # A lone surrogate, which only a damaged row can hold, becomes the escape that JSON has for it.
        return str(content).encode(errors="backslashreplace")


def encode(value: Any) -> bytes:
    """`value` as JSON text in UTF-8. A lone surrogate, which only a damaged row can hold, is escaped."""
    try:
        return _dump(value, ascii=False).encode()
    except UnicodeEncodeError:
        return _dump(value, ascii=True).encode()


def refusal(problem: Problem, request_id: str) -> Response:
    """A problem as an answer."""
    return Response(
        encode(document(problem, request_id)),
        status_code=problem.status_code,
        headers=dict(problem.headers or {}),
        media_type="application/problem+json",
    )


def _dump(value: Any, *, ascii: bool) -> str:
    return json.dumps(value, ensure_ascii=ascii, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_instant(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
