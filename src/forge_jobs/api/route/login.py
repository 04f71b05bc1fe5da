"""`/login` and `/logout`: a cookie for browsers, in place of a token in every request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from forge_jobs.api.authenticate import COOKIE
from forge_jobs.api.config import ApiConfig
from forge_jobs.api.endpoint import api_router, endpoint
from forge_jobs.api.model.common import Given
from forge_jobs.api.problem import Problem
from forge_jobs.clock import from_us

router = api_router()


class LoginBody(Given):
    """The token that the login is for."""

    token: str


@endpoint(router, "POST", "/login", role=None, status=204, also={404: "There is no login here."}, tag="login")
async def login(request: Request, body: LoginBody) -> Response:
    """Log in with a token. The cookie lasts twelve hours at most, and no longer than the token."""
    scope = request.scope
    config: ApiConfig = scope["forge.config"]
    if config.tokens is None:
        raise Problem("not_found", "there is no login here: this server knows no tokens")
    services = scope["forge.services"]
    services.attempts.check(scope["forge.address"])
    now = from_us(scope["forge.storage"].clock.now_us())
    begun = config.tokens.begin_session(body.token.encode("utf-8", "replace"), now)
    if begun is None:
        services.attempts.failed(scope["forge.address"])
        raise Problem("unauthorized", "this is not a token of this server, or it has expired", field="token")
    session, until = begun
    answer = Response(status_code=204)
    answer.set_cookie(
        COOKIE,
        session,
        max_age=int((until - now).total_seconds()),
        path=(scope.get("root_path") or "") + "/",
        httponly=True,
        samesite="strict",
        secure=_is_secure(request, config),
    )
    return answer


@endpoint(router, "POST", "/logout", role=None, status=204, tag="login")
async def logout(request: Request) -> Response:
    """Log out: the cookie is worth nothing any more."""
    config: ApiConfig = request.scope["forge.config"]
    session = request.cookies.get(COOKIE)
    if session is not None and config.tokens is not None:
        config.tokens.end_session(session)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE, path=(request.scope.get("root_path") or "") + "/", httponly=True, samesite="strict")
    return answer


def _is_secure(request: Request, config: ApiConfig) -> bool:
    if config.trusted_proxy and "x-forwarded-proto" in request.headers:
        return request.headers["x-forwarded-proto"].rpartition(",")[2].strip().lower() == "https"
    return request.url.scheme == "https"
