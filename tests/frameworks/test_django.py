"""The Django shop, started for real: views that enqueue, the management command, tasks; on both databases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge_jobs.testing.postgres import Server
from forge_jobs.testing.throwaway import reserved_port

from .server import EXAMPLES, Site, running, site

SHOP = EXAMPLES / "django_shop"


class Shop:
    """The Django project in a folder, with its database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "shop.settings"}

    def manage(self, *arguments: str, code: str = "", **environment: str) -> str:
        """Run a command of the project; what it says."""
        done = subprocess.run(
            [sys.executable, *(("-c", code) if code else ("-m", "django", *arguments))],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(SHOP), **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.code = done.returncode
        return done.stdout + done.stderr


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """The shop after `migrate`."""
    url = ""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("server")
        url = server.new_database()
    made = Shop(tmp_path, url)
    said = made.manage("migrate", "-v", "0")
    assert made.code == 0, said
    return made


@pytest.fixture
def served(shop: Shop) -> Iterator[Site]:
    """The shop's web server."""
    with (
        reserved_port() as port,
        site(
            *("django", "runserver", "--noreload", f"127.0.0.1:{port}"),
            port=port,
            folder=shop.folder,
            path=(SHOP,),
            **shop.environment,
        ) as answering,
    ):
        yield answering


def read(site: Site, path: str) -> Any:
    return json.loads(site.request("GET", path)[1])


@pytest.mark.parametrize("shop", ["sqlite", "postgresql"], indirect=True)
def test_a_request_makes_a_job_and_a_task_and_the_worker_of_the_site_runs_both(shop: Shop, served: Site) -> None:
    served.job("POST", "/orders/7")
    assert served.request("POST", "/orders/7")[0] == 409
    refused = served.job("POST", "/refused/9")
    assert read(served, f"/tasks/{refused}") == {"status": "READY", "attempts": 0, "errors": []}
    said = shop.manage("forge_worker", "--drain")
    assert shop.code == 0, said
    assert "queues default, mail; kinds receipt_write, shop.tasks.mail, shop.tasks.refuse" in said
    assert read(served, "/orders/7") == {"number": 7, "receipt": "order 7, attempt 1", "mailed": True}
    assert served.request("GET", "/orders/8")[0] == 404
    assert shop.manage(code=COUNT) == "{'dead': 1, 'done': 2}\n"  # the refused request has left nothing
    assert read(served, f"/tasks/{refused}") == {"status": "FAILED", "attempts": 1, "errors": ["builtins.ValueError"]}


def test_the_worker_runs_until_it_is_stopped(shop: Shop, served: Site) -> None:
    with running("django", "forge_worker", "--queues", "default", folder=shop.folder, path=(SHOP,), **shop.environment):
        job = served.job("POST", "/orders/7")
        said = shop.manage(code=WAIT.format(job=job))
        assert "done" in said
    assert read(served, "/orders/7")["mailed"] is False  # the queue `mail` is not served


WAIT = """
import django; django.setup()
from forge_jobs.integrations.django import queue
print(queue().wait({job!r}, timeout=20).row.status)
"""
COUNT = """
import django; django.setup()
from forge_jobs.integrations.django import queue
from forge_jobs.storage.types.job import JobFilter
print(dict(sorted((status, number) for status, number in queue().count(JobFilter()).items() if number)))
"""
IN_PROCESS = """
import datetime, django
django.setup()
from django.db import transaction
from django.utils import timezone
try:
    from django.tasks.exceptions import TaskResultDoesNotExist
except ImportError:  # before Django 6
    from django_tasks.exceptions import TaskResultDoesNotExist
from shop.tasks import mail
from forge_jobs.integrations.django import queue
{body}
"""


@pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
def test_a_task_has_its_time_its_priority_and_its_queue_and_goes_with_its_transaction(shop: Shop) -> None:
    said = shop.manage(
        code=IN_PROCESS.format(
            body="""
later = timezone.now() + datetime.timedelta(hours=1)
result = mail.using(run_after=later, priority=7).enqueue(number=3)
row = queue().get(result.id).row
assert row.scheduled_at == later, row
assert (row.priority, row.queue, row.kind, row.max_attempts) == (-7, "mail", "shop.tasks.mail", 1), row
assert row.payload == {"args": [], "kwargs": {"number": 3}, "backend": "default"}, row.payload
result.refresh()
assert (result.status, result.kwargs) == ("READY", {"number": 3})
try:
    with transaction.atomic():
        result = mail.enqueue(3)
        raise KeyError
except KeyError:
    pass
try:
    mail.get_result(result.id)
except TaskResultDoesNotExist:
    print("as it should be")
"""
        )
    )
    assert "as it should be" in said, said


WRONG = {
    "unknown key 'SLOT'; did you mean 'SLOTS'?": {"SLOT": 3},
    "SLOTS 0 must be a whole number, 1 or more": {"SLOTS": 0},
    "QUEUES 'mail' must be a list of names": {"QUEUES": "mail"},
    "queue name 'a,b' is not legal": {"QUEUES": ["a,b"]},
    "DATABASE 'other' is not in DATABASES": {"DATABASE": "other"},
    "URL 7 must be text": {"URL": 7},
    "must be a dict, not ['mail']": ["mail"],
}
CHECK = """
import django; django.setup()
from django.core.checks import run_checks
from django.test.utils import override_settings
for setting in {settings}:
    with override_settings(FORGE_JOBS=setting):
        (error,) = run_checks()
        print(error.id, error.msg)
"""


def test_check_names_what_is_wrong_in_the_settings(tmp_path: Path) -> None:
    said = Shop(tmp_path, "").manage(code=CHECK.format(settings=list(WRONG.values()))).splitlines()
    assert len(said) == len(WRONG), said
    for line, complaint in zip(said, WRONG, strict=True):
        assert line.startswith("forge_jobs.E001 FORGE_JOBS")
        assert complaint in line


def test_check_warns_of_a_file_that_django_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("from shop.settings import *\nDATABASES['default'].pop('OPTIONS', None)\n")
    shop = Shop(tmp_path, "")
    said = shop.manage("check", DJANGO_SETTINGS_MODULE="plain", PYTHONPATH=f"{SHOP}{os.pathsep}{tmp_path}")
    assert "PRAGMA wal_autocheckpoint=0" in said
    assert "forge_jobs.W001" in said
