"""The dashboard's files, from a table that is made at the start: what a request names is only ever looked up in it."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from forge_jobs.ui import STATIC

FOR_EVER: Final = "public, max-age=31536000, immutable"
"""Files under `assets/` have a hash of their content in their names."""
ASK_FIRST: Final = "no-cache"
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
_MISSING: Final = (
    "The dashboard is not part of this installation; the API works without it.\n"
    "Install a release, or build it in a checkout: make dashboard (FORGE_UI must not be 'skip').\n"
)


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    packed: bytes
    media_type: str
    cached: str
    tag: str


def page_routes(folder: Path = STATIC) -> list[BaseRoute]:
    """`/` and a route for each file in `folder`; only `/`, which tells what to do, if it was not built."""
    if not (folder / "index.html").is_file():
        return [Route("/", _missing, methods=["GET"], name="dashboard")]
    routes: list[BaseRoute] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            place = "/" if name == "index.html" else f"/{name}"
            routes.append(Route(place, _answer(_read(path, name)), methods=["GET"], name=f"dashboard {name}"))
    return routes


def _read(path: Path, name: str) -> _File:
    content = path.read_bytes()
    media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return _File(
        content=content,
        packed=gzip.compress(content, 6, mtime=0),
        media_type=media_type,
        cached=FOR_EVER if name.startswith("assets/") else ASK_FIRST,
        tag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )


def _answer(file: _File) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        headers = {"Cache-Control": file.cached, "ETag": file.tag, "Vary": "Accept-Encoding"}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        packs = "gzip" in request.headers.get("accept-encoding", "").lower()
        if packs and len(file.packed) < len(file.content):
            headers["Content-Encoding"] = "gzip"
            return Response(file.packed, media_type=file.media_type, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    return answer


async def _missing(request: Request) -> Response:
    return PlainTextResponse(_MISSING, status_code=503)
