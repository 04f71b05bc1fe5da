"""A backend for Django's tasks: `django.tasks` of Django 6, or the package `django-tasks` before.

    TASKS = {"default": {"BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend"}}

    result = send_receipt.enqueue(order.pk)          # a function under @task, in your transaction

A task is a job whose kind is the path of its function, so a worker knows it by its own code and imports nothing that a
row of the database names. `manage.py forge_worker` finds the tasks in the modules `tasks` of the installed apps, and in
those that OPTIONS["MODULES"] names. A task runs once, unless OPTIONS["MAX_ATTEMPTS"] says more; one whose worker dies
is run again, up to three times. What a task returns is not kept.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.db import close_old_connections
from django.utils import timezone
from django.utils.module_loading import autodiscover_modules

try:
    from django.tasks import base, exceptions, signals, task_backends
    from django.tasks.backends.base import BaseTaskBackend
except ImportError:  # before Django 6
    from django_tasks import base, exceptions, signals, task_backends
    from django_tasks.backends.base import BaseTaskBackend

from forge_jobs.integrations.django.site import Site, queue
from forge_jobs.integrations.django.transaction import enqueue
from forge_jobs.names import check_name
from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.storage.error import InvalidName
from forge_jobs.storage.types.job import EnqueueRequest, JobDetail

InvalidTask: Any = getattr(exceptions, "InvalidTaskError", None) or exceptions.InvalidTask
Status: Any = base.TaskResultStatus
STATUS: Final = {
    "pending": Status.READY,
    "failed": Status.READY,  # it waits for its next attempt
    "in_progress": Status.RUNNING,
    "done": Status.SUCCESSFUL,
    "dead": Status.FAILED,
}
MODULE: Final = "tasks"


class ForgeResult(base.TaskResult):
    """What is known of a task."""

    @property
    def return_value(self) -> Any:
        """
        Raises:
            ValueError: the task failed or is not over.
            NotImplementedError: it succeeded; what it returned is not kept.
        """
        if self.status == Status.SUCCESSFUL:
            raise NotImplementedError("forge-jobs keeps no return values; let the task store what you need")
        return super().return_value


class ForgeBackend(BaseTaskBackend):
    """Tasks as jobs of the site. QUEUES and the names of tasks' queues are those of forge-jobs."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Any) -> None:
        """Whether the task can be run by this backend.

        Raises:
            InvalidTask: it cannot; `InvalidTaskError` in django-tasks.
        """
        super().validate_task(task)
        try:
            check_name(task.module_path, "kind")
            check_name(task.queue_name, "queue")
        except InvalidName as error:
            raise InvalidTask(str(error)) from error

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Add the task with the commit of the open transaction; without one, at once."""
        self.validate_task(task)
        result = _result(task, "", self.alias, args=list(args), kwargs=dict(kwargs))
        run_after = task.run_after
        if run_after is not None and timezone.is_naive(run_after):
            run_after = timezone.make_aware(run_after)
        site = Site.read()
        request = EnqueueRequest(
            task.module_path,
            {"args": result.args, "kwargs": result.kwargs, "backend": self.alias},
            queue=task.queue_name,
            priority=-task.priority,
            run_at=run_after,
            max_attempts=self.options.get("MAX_ATTEMPTS", 1),
        )
        added = (
            enqueue(request, using=site.database, autocommit_ok=True, wake=_wake)
            if site.url is None
            else queue().enqueue(request)
        )
        _set(result, id=added.id, enqueued_at=timezone.now())
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """What became of a task.

        Raises:
            TaskResultDoesNotExist: there is no such job, or it is none of a task that is known here.
        """
        detail = queue().get(result_id)
        task = None if detail is None else _task_at(detail.row.kind)
        if detail is None or task is None:
            raise exceptions.TaskResultDoesNotExist(result_id)
        return _result_of(detail, task, self.alias)


def register_tasks(handlers: HandlerRegistry) -> None:
    """Give a worker a handler for every task of this site that runs on a backend of ours."""
    autodiscover_modules(MODULE)
    names = [f"{app.name}.{MODULE}" for app in apps.get_app_configs()]
    modules = [sys.modules[name] for name in names if name in sys.modules]
    for backend in _backends():
        modules += [import_module(name) for name in backend.options.get("MODULES", ())]
    for task in _tasks(modules):
        handlers.register(_TaskHandler(task))


class _TaskHandler:
    """Runs the jobs of one task."""

    def __init__(self, task: Any) -> None:
        self.kind: str = task.module_path
        self._task = task

    async def run(self, ctx: JobCtx, payload: dict[str, Any]) -> None:
        now = timezone.now()
        result = _result(self._task, ctx.job_id, payload["backend"], args=payload["args"], kwargs=payload["kwargs"])
        _set(
            result,
            status=Status.RUNNING,
            enqueued_at=ctx.enqueued_at,
            started_at=now,
            last_attempted_at=now,
            worker_ids=[ctx.process_id] * ctx.attempt,
        )
        sender = type(self._task.get_backend())
        await _on_a_thread(lambda: signals.task_started.send(sender, task_result=result))
        context = (base.TaskContext(task_result=result),) if self._task.takes_context else ()
        status = Status.FAILED if ctx.attempt >= ctx.max_attempts else Status.READY
        try:
            await self._call(*context, *payload["args"], **payload["kwargs"])
            status = Status.SUCCESSFUL
        finally:
            if status != Status.READY:
                _set(result, status=status, finished_at=timezone.now())
                await _on_a_thread(lambda: signals.task_finished.send(sender, task_result=result))

    async def _call(self, *args: Any, **kwargs: Any) -> None:
        function = self._task.func
        if inspect.iscoroutinefunction(function):
            await function(*args, **kwargs)
        else:
            await _on_a_thread(lambda: function(*args, **kwargs))


async def _on_a_thread(call: Callable[[], object]) -> None:
    """Call on a thread of the worker. Its database connection is checked before and given back after, as in a request:
    the worker lives for weeks, and a server that was restarted meanwhile must not fail every task."""

    def work() -> None:
        close_old_connections()
        try:
            call()
        finally:
            close_old_connections()

    await asyncio.to_thread(work)


def _wake(queues: list[str]) -> None:
    queue().wake(queues)


def _backends() -> Iterator[ForgeBackend]:
    for alias in task_backends.settings:
        backend = task_backends[alias]
        if isinstance(backend, ForgeBackend):
            yield backend


def _tasks(modules: Sequence[ModuleType]) -> Iterator[Any]:
    """The tasks that these modules name and that run on a backend of ours."""
    found: dict[str, Any] = {}
    for module in modules:
        for value in list(vars(module).values()):
            if _is_task(value) and isinstance(value.get_backend(), ForgeBackend):
                found[value.module_path] = value
    yield from found.values()


def _is_task(value: object) -> bool:
    """By its type: to ask some of Django's lazy objects for their class would set them up."""
    return issubclass(type(value), base.Task)


def _task_at(path: str) -> Any | None:
    """The task of that path, in a module that this program has imported."""
    module_name, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module_name), name, None)
    return found if _is_task(found) else None


def _result(task: Any, job_id: str, alias: str, *, args: list[Any], kwargs: dict[str, Any]) -> Any:
    return ForgeResult(
        task=task,
        id=job_id,
        status=Status.READY,
        enqueued_at=None,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=args,
        kwargs=kwargs,
        backend=alias,
        errors=[],
        worker_ids=[],
    )


def _result_of(detail: JobDetail, task: Any, alias: str) -> Any:
    row = detail.row
    result = _result(task, row.id, alias, args=row.payload["args"], kwargs=row.payload["kwargs"])
    errors = []
    if detail.traceback is not None and row.status in ("failed", "dead"):
        errors.append(base.TaskError(exception_class_path=_class_in(detail.traceback), traceback=detail.traceback))
    _set(
        result,
        status=STATUS.get(row.status, Status.READY),
        enqueued_at=_local(row.enqueued_at),
        started_at=_local(row.started_at),
        last_attempted_at=_local(row.started_at),
        finished_at=_local(row.completed_at),
        errors=errors,
        worker_ids=[row.process_id or row.queue] * row.attempts,
    )
    return result


def _class_in(traceback: str) -> str:
    """The path of the exception that a traceback ends with."""
    last = next((line for line in reversed(traceback.splitlines()) if line and not line.startswith(" ")), "")
    name = last.partition(":")[0].strip() or "Exception"
    return name if "." in name else f"builtins.{name}"


def _local(instant: datetime | None) -> datetime | None:
    """As Django has instants on this site."""
    return timezone.make_naive(instant) if instant is not None and not settings.USE_TZ else instant


def _set(result: Any, **fields: Any) -> None:
    """Results are frozen, and filled in by their backends."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)
