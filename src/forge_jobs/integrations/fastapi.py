"""A store, and a worker if wanted, that live as long as a FastAPI or Starlette application.

    jobs = Jobs("sqlite:///jobs.db", handlers)
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/orders")
    async def order(number: int, queue: Annotated[AppQueue, Depends(jobs)]) -> dict[str, str]:
        return {"job": (await queue.enqueue(EnqueueRequest("receipt_send", {"order": number}))).id}

The job is durable when `enqueue` returns. With `slots=0` this process only enqueues, and workers are others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from forge_jobs.config import RuntimeConfig, StoreConfig
from forge_jobs.runtime.handler import HandlerRegistry
from forge_jobs.runtime.queue_runtime import QueueRuntime
from forge_jobs.runtime.routing import DefaultRouter, Router, fill
from forge_jobs.storage.error import ConfigError
from forge_jobs.storage.open import DEFAULT_URL, open_storage
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest

if TYPE_CHECKING:
    from forge_jobs.api import ApiConfig
    from forge_jobs.api.guard import Guard

_STORE: Final = StoreConfig()


class AppQueue:
    """The queue of an application while it runs: what a request enqueues with."""

    def __init__(self, storage: Storage, handlers: HandlerRegistry, router: Router) -> None:
        self.storage = storage
        self._handlers = handlers
        self._router = router

    async def enqueue(self, request: EnqueueRequest) -> EnqueueOutcome:
        """Add one job; durable when it returns. The queue and max_attempts that it leaves out are filled in.

        Raises as `storage.jobs.enqueue` does.
        """
        return await self.storage.jobs.enqueue(fill(request, self._router, self._handlers))

    async def enqueue_bulk(self, requests: Sequence[EnqueueRequest]) -> list[EnqueueOutcome]:
        """Add up to 10 000 jobs in one transaction, all or nothing; outcomes in request order."""
        return await self.storage.jobs.enqueue_bulk([fill(one, self._router, self._handlers) for one in requests])


class Dashboard:
    """An ASGI app to mount, which serves while its `Jobs` are in use; else it answers 503. Made by `Jobs.dashboard`."""

    def __init__(self, config: ApiConfig | None) -> None:
        from forge_jobs.api import ApiConfig

        self._config = config or ApiConfig()
        self._app: Guard | None = None

    def open(self, storage: Storage, runtime: QueueRuntime | None) -> None:
        """Serve this store."""
        from forge_jobs.api import create_app

        self._app = create_app(storage, replace(self._config, runtime=runtime))

    async def close(self) -> None:
        app, self._app = self._app, None
        if app is not None:
            await app.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse("the application does not run\n", 503)(scope, receive, send)


class Jobs:
    """The jobs of an application: its lifespan opens the store and starts the worker, and is the way to enqueue.

    queues, slots, name, router, config: those of the worker, as of `QueueRuntime`; with `slots=0` there is none.
    store: how the store is opened. grace: seconds that handlers get to end when the application stops; those of the
    config if not given. Give the server a longer grace than that.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        handlers: HandlerRegistry | None = None,
        *,
        queues: Iterable[str] = ("default",),
        slots: int = 10,
        name: str | None = None,
        router: Router | None = None,
        config: RuntimeConfig | None = None,
        store: StoreConfig = _STORE,
        grace: float | timedelta | None = None,
    ) -> None:
        self._url = url
        self._handlers = handlers or HandlerRegistry()
        self._router = router or DefaultRouter()
        self._worker = (tuple(queues), slots, name, config)
        self._store = store
        self._grace = grace
        self._opened: AsyncExitStack | None = None
        self._queue: AppQueue | None = None
        self._runtime: QueueRuntime | None = None
        self._dashboards: list[Dashboard] = []

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For `FastAPI(lifespan=jobs.lifespan)`. In a lifespan of your own say `async with jobs:`."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise ConfigError("these Jobs are in use already; an application needs its own")
        async with AsyncExitStack() as opening:
            storage = await opening.enter_async_context(open_storage(self._url, config=self._store))
            self._queue = AppQueue(storage, self._handlers, self._router)
            queues, slots, name, config = self._worker
            if slots:
                runtime = QueueRuntime(storage, self._handlers, queues, slots, self._router, name, config)
                await runtime.start()
                opening.push_async_callback(runtime.stop, self._grace)
                self._runtime = runtime
            for dashboard in self._dashboards:
                dashboard.open(storage, self._runtime)
                opening.push_async_callback(dashboard.close)  # before the store: its streams would go on
            self._opened = opening.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        opened, self._opened = self._opened, None
        self._queue = None
        if opened is not None:
            await opened.aclose()

    async def __call__(self) -> AppQueue:
        """The queue, for `Depends(jobs)`."""
        return self.queue

    @property
    def queue(self) -> AppQueue:
        """The queue, while the application runs.

        Raises:
            ConfigError: it does not.
        """
        if self._queue is None:
            raise ConfigError("the store is not open; give the application lifespan=jobs.lifespan")
        return self._queue

    def dashboard(self, config: ApiConfig | None = None) -> Dashboard:
        """The dashboard and the HTTP API over this application's store: `app.mount("/ops", jobs.dashboard(config))`.

        Without tokens or `authenticate` in the config every caller may do everything. Needs the extra `server`.
        """
        made = Dashboard(config)
        self._dashboards.append(made)
        return made

    @property
    def is_working(self) -> bool:
        """Whether there is a worker that claims jobs: for a health check. One whose store became unusable is none."""
        return self._runtime is not None and self._opened is not None and not self._runtime.env.stopping.is_set()
