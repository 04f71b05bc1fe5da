"""Which methods a path knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from starlette.routing import BaseRoute, Match
from starlette.types import Scope


class HasRoutes(Protocol):
    """An app or a router."""

    @property
    def routes(self) -> Iterable[BaseRoute]: ...


def methods_of(app: HasRoutes, scope: Scope) -> list[str]:
    """The methods of the path that is called, in alphabetical order; none if there is no such path."""
    found = {
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)
    }
    if not found:
        return []
    return sorted(found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set()))
