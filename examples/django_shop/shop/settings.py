"""The settings of the shop."""

import os
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

SECRET_KEY = "a shop for examples only"  # noqa: S105
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["shop", "forge_jobs.integrations.django"]
if find_spec("django_tasks"):  # part of Django from 6.0 on
    INSTALLED_APPS.append("django_tasks")

_server = urlsplit(os.environ.get("DATABASE_URL", ""))
_on_a_file: dict[str, Any] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": "shop.db",
    "OPTIONS": {"init_command": "PRAGMA wal_autocheckpoint=0"},
}
_on_a_server: dict[str, Any] = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": _server.path.lstrip("/"),
    "USER": _server.username,
    "PASSWORD": _server.password,
    "HOST": _server.hostname,
    "PORT": _server.port,
}
DATABASES = {"default": _on_a_server if _server.hostname else _on_a_file}

FORGE_JOBS = {"QUEUES": ["default", "mail"], "SLOTS": 5}
TASKS = {
    "default": {
        "BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend",
        "QUEUES": ["default", "mail"],
    }
}
