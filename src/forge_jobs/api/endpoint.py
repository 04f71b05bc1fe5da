"""How routes are declared: each with the role that may call it, what it takes and gives, and how it may refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, get_origin

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from forge_jobs.api.answer import Json
from forge_jobs.api.body import StrictRequest
from forge_jobs.api.identity import Identity, Role
from forge_jobs.api.model.common import ProblemModel
from forge_jobs.api.problem import Problem, invalid


class JobIdConvertor(Convertor[str]):
    """What can be a job id at all, so that `/jobs/actions` is not looked for among jobs."""

    regex = "[0-9A-Za-z]{26}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("job", JobIdConvertor())

Endpoint = Callable[..., Awaitable[Response]]

_ALWAYS: Final = (400, 401, 403, 408, 414, 429, 431, 500, 503)
_OF_CHANGES: Final = (409, 413, 415, 507)


def api_router() -> APIRouter:
    """A router whose routes must be declared by `endpoint`."""
    return APIRouter(route_class=Route)


def endpoint(
    router: APIRouter,
    method: str,
    path: str,
    *,
    role: Role | None,
    answer: Any = None,
    status: int = 200,
    also: Mapping[int, str] | None = None,
    changes: bool | None = None,
    media_type: type[Response] | None = None,
    tag: str,
) -> Callable[[Endpoint], Endpoint]:
    """Declare a route.

    role: the least that may call it; None, everybody. answer: the model of its success. also: other successes, and
    refusals beyond the usual ones, by status. media_type: the class of its answers, if not JSON. changes: whether it
    changes anything, if its method does not tell.
    """
    is_change = method != "GET" if changes is None else changes
    refusals = {*_ALWAYS, *(_OF_CHANGES if method != "GET" else ()), *((404,) if "{" in path else ())}
    documented: dict[int | str, dict[str, Any]] = {
        code: {"content": {"application/problem+json": {"schema": _PROBLEM}}} for code in sorted(refusals)
    }
    for code, description in (also or {}).items():
        if code < 400:
            documented[code] = {"description": description, **({"model": answer} if answer is not None else {})}
        else:
            documented[code] = {"description": description, "content": _PROBLEM_CONTENT}

    def declare(function: Endpoint) -> Endpoint:
        summary, _, description = (function.__doc__ or "").partition("\n\n")
        router.add_api_route(
            path,
            function,
            methods=[method],
            response_model=answer,
            status_code=status,
            responses=documented,
            tags=[tag],
            summary=summary.strip().rstrip("."),
            description=" ".join(description.split()) or summary.strip().rstrip("."),
            response_class=media_type or (Response if status == 204 else Json),
            openapi_extra={"x-role": "none" if role is None else role.word, "x-changes": is_change},
        )
        return function

    return declare


class Route(APIRoute):
    """A route that lets only those in who may, and refuses what it does not know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        extra = self.openapi_extra or {}
        if "x-role" not in extra:
            raise TypeError(f"route {self.path} is not declared by `endpoint`, so nobody said who may call it")
        self.role = None if extra["x-role"] == "none" else Role[extra["x-role"].upper()]
        self.changes = bool(extra["x-changes"])

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        singles, lists = _query_names(self)

        async def guarded(request: Request) -> Response:
            self._admit(request)
            _check_query(request, singles, lists)
            return await handle(StrictRequest(request.scope, request.receive))

        return guarded

    def _admit(self, request: Request) -> None:
        if self.role is None:
            return
        identity: Identity = request.scope["forge.identity"]
        if self.changes and (request.scope["forge.config"].read_only or identity.role is Role.READ):
            why = "this server is read-only" if request.scope["forge.config"].read_only else "this token only reads"
            raise Problem("read_only", f"nothing can be changed here: {why}", reason="read_only")
        if identity.role < self.role:
            raise Problem("forbidden", f"this needs the role {self.role.word}; {identity.name} is {identity.role.word}")


def _query_names(route: APIRoute) -> tuple[frozenset[str], frozenset[str]]:
    """The parameters that may be given once, and those that may be repeated."""
    singles: set[str] = set()
    lists: set[str] = set()
    pending = [route.dependant]
    while pending:
        dependant = pending.pop()
        pending += dependant.dependencies
        for param in dependant.query_params:
            model = param.field_info.annotation
            if isinstance(model, type) and issubclass(model, BaseModel):
                for name, field in model.model_fields.items():
                    (lists if _is_list(field.annotation) else singles).add(field.alias or name)
            else:
                (lists if _is_list(model) else singles).add(param.alias)
    return frozenset(singles), frozenset(lists)


def _is_list(annotation: Any) -> bool:
    parts = getattr(annotation, "__args__", ()) if get_origin(annotation) is not list else ()
    return get_origin(annotation) is list or any(get_origin(part) is list for part in parts)


def _check_query(request: Request, singles: frozenset[str], lists: frozenset[str]) -> None:
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in singles and name in seen:
            raise invalid(f"parameter {name} is given twice", field=name, reason="duplicate_parameter")
        if name not in singles and name not in lists:
            known = ", ".join(sorted(singles | lists)) or "none"
            raise invalid(f"there is no parameter {ascii(name)[:80]} here; known are {known}", field=name[:80],
                          reason="unknown_parameter")  # fmt: skip
        seen.add(name)


_PROBLEM: Final = ProblemModel.model_json_schema()
_PROBLEM_CONTENT: Final = {"application/problem+json": {"schema": _PROBLEM}}
