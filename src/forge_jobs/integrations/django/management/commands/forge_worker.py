"""`manage.py forge_worker`: a worker process for the jobs of the site."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from forge_jobs.integrations.django.site import REGISTRY, Site, handlers


class Command(BaseCommand):
    """`forge-jobs worker` with the database, the handlers and the queues of the site."""

    help = "Run the jobs of this site until SIGTERM or Ctrl-C. All but --queues and --slots is as in forge-jobs worker."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--queues", metavar="NAME,…", help="the queues to serve; FORGE_JOBS['QUEUES'] if not given")
        parser.add_argument("--slots", metavar="N", help="most jobs of one queue at a time in this process")
        parser.add_argument("--name", metavar="LABEL", help="what people call this worker")
        parser.add_argument("--grace", metavar="DURATION", help="how long handlers get to end at shutdown")
        parser.add_argument("--drain", action="store_true", help="stop when nothing is ready or running")
        parser.add_argument("--drain-all", action="store_true", help="stop when nothing waits for a later time either")
        parser.add_argument("--reload", action="store_true", help="start anew when a source file changes")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["reload"]:
            sys.exit(_reload())
        from forge_jobs.cli.main import run

        _register_tasks()
        code = run(_arguments(Site.read(), options))
        if code:
            raise CommandError("the worker ended with an error", returncode=code)


def _arguments(site: Site, options: dict[str, Any]) -> list[str]:
    """The command line of the worker."""
    found = ["worker", REGISTRY, "--database", site.store_url]
    found += ["--queues", options["queues"] or ",".join(site.queues)]
    slots = options["slots"] or site.slots
    for name, value in (("--slots", slots), ("--name", options["name"]), ("--grace", options["grace"])):
        if value is not None:
            found += [name, str(value)]
    return found + [f"--{name.replace('_', '-')}" for name in ("drain", "drain_all") if options[name]]


def _register_tasks() -> None:
    """The handlers of the site's tasks, if it has tasks."""
    if hasattr(settings, "TASKS"):
        try:
            from forge_jobs.integrations.django.backend import register_tasks
        except ImportError:  # Django before 6, without django-tasks: its TASKS are somebody else's
            return
        register_tasks(handlers)


def _reload() -> int:
    """This command line without `--reload` as a child, and anew after changes."""
    from forge_jobs.cli.errors import Usage
    from forge_jobs.cli.logs import log_to_stderr
    from forge_jobs.cli.reload import run_reloading
    from forge_jobs.cli.worker import RELOADED

    log_to_stderr("info", "auto")
    command = [sys.executable, *(argument for argument in sys.argv if argument != "--reload")]
    try:
        return run_reloading(command, Path.cwd(), marked=RELOADED)
    except Usage as error:
        raise CommandError(str(error)) from error
