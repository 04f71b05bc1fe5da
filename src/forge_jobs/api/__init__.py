"""The HTTP API: an ASGI app over an open store. Needs the extra `server`."""

from forge_jobs.api.app import create_app
from forge_jobs.api.config import ApiConfig
from forge_jobs.api.identity import Identity, Role

__all__ = ["ApiConfig", "Identity", "Role", "create_app"]
