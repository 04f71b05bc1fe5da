"""Entity tags of settings, so that two people do not overwrite each other."""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.requests import Request

from forge_jobs.api.answer import encode
from forge_jobs.api.problem import Problem


def etag(shown: Any) -> str:
    """The tag of settings as they are shown."""
    return f'"{hashlib.sha256(encode(shown)).hexdigest()[:16]}"'


def check_match(request: Request, shown: Any) -> None:
    """Refuse a change of what is not as the caller saw it; without `If-Match` nothing is compared.

    Raises:
        Problem: somebody changed it since.
    """
    wanted = request.headers.get("if-match")
    if wanted is None or wanted.strip() == "*":
        return
    if etag(shown) not in [tag.strip().removeprefix("W/") for tag in wanted.split(",")]:
        raise Problem("precondition_failed", "it was changed since you looked; look again")
