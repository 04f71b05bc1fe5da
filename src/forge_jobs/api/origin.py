"""Where a request comes from: the rule against pages of other sites."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from forge_jobs.api.problem import Problem

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})?)(?::\d{1,5})?")
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def host_name(header: str) -> str | None:
    """The name in a Host header, lower case and without the port; None if it is not one."""
    found = _HOST.fullmatch(header)
    return None if found is None else found["name"].lower()


def check_origin(headers: Headers) -> None:
    """Let a request that may change something pass only from our own pages, or from a program with a token.

    Raises:
        Problem: a page of another site sent it, or nothing tells that none did.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site.lower() not in ("same-origin", "none"):
            raise _refused(f"Sec-Fetch-Site is {site[:40]!r}")
        return
    origin = headers.get("origin")
    if origin is not None:
        if not is_same(origin, headers.get("host", "")):
            raise _refused("Origin and Host differ")
        return
    if not headers.get("authorization", "").lower().startswith("bearer "):
        raise _refused(
            "there is neither Sec-Fetch-Site nor Origin; a program that has no token sends `Sec-Fetch-Site: none`"
        )


def is_same(origin: str, host: str) -> bool:
    """Whether an Origin names the host of the Host header, with its port."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return False
    name, own_port = host_name(host), host.rpartition(":")[2]
    own_port = own_port if own_port.isdigit() else ""
    shown = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    implied = DEFAULT_PORTS[parts.scheme]
    return shown.lower() == name and (str(port) if port else implied) == (own_port or implied)


def _refused(why: str) -> Problem:
    return Problem("cross_origin", f"a change must come from this server's own pages: {why}", reason="cross_origin")
