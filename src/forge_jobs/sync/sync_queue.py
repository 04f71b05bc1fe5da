"""The queue for programs without an event loop: scripts, Flask, Django.

Every verb is the one of `open_storage`, awaited on the loop of `background.py` while the calling thread waits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from forge_jobs.clock import Clock
from forge_jobs.config import StoreConfig, check_number
from forge_jobs.ids import JobId, new_id, new_ids
from forge_jobs.runtime.routing import DefaultRouter, Router, fill
from forge_jobs.storage.error import NotFound, WaitTimeout
from forge_jobs.storage.lifecycle import FINISHED
from forge_jobs.storage.open import DEFAULT_URL, masked, open_storage
from forge_jobs.storage.protocol import PYTHON, STALE_AFTER, Storage
from forge_jobs.storage.types.answers import CancelOutcome, RetryOutcome
from forge_jobs.storage.types.blocker import Blocker
from forge_jobs.storage.types.event import Actor
from forge_jobs.storage.types.job import EnqueueOutcome, EnqueueRequest, JobDetail, JobFilter, Page
from forge_jobs.sync.background import BackgroundStore

if TYPE_CHECKING:
    from forge_jobs.runtime.handler import HandlerRegistry

IN_MEMORY: Final = "sqlite:///:memory:"
MARGIN_S: Final = 5.0
"""A call gets this much more than the store's own deadline, whose error says better what was wrong."""
WAIT_S: Final = 60.0
WAIT_MAX_S: Final = 366 * 86_400
LOOK_S: Final = 0.01
LOOK_MAX_S: Final = 0.25
LOOK_SHARE: Final = 0.1
"""A waiter looks again after a tenth of the time it has waited, within these bounds."""
_DEFAULT_CONFIG: Final = StoreConfig()


class SyncQueue:
    """The queue for programs without an event loop; every verb blocks the calling thread until the store answered.

        with SyncQueue("sqlite:///jobs.db") as queue:
            job = queue.enqueue(EnqueueRequest("mail", {"to": "a@example.org"}))
            print(queue.wait(job.id, timeout=30).row.status)

    Without `with` it is opened by its first call and closed at the end of the program, so it may be a global of a web
    application. Threads may share one: what they enqueue at the same time shares a commit. After a fork parent and
    child open it again by themselves. URL, config, clock and create are those of `open_storage`; the errors are those
    of its verbs. The queue and max_attempts that a request leaves out are filled in as everywhere: from `handlers`, if
    given, then from `router`.

    Raises, from every method:
        ConfigError: the calling thread runs an event loop, which it would block.
        ForkedConnection: a database in memory is used in a forked child.
        StoreUnavailable: it is closed, or the store cannot be opened or does not answer.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        config: StoreConfig = _DEFAULT_CONFIG,
        router: Router | None = None,
        handlers: HandlerRegistry | None = None,
        clock: Clock | None = None,
        create: bool = True,
    ) -> None:
        self._url = url
        self._router = router or DefaultRouter()
        self._handlers = handlers
        self._store = BackgroundStore(
            partial(open_storage, url, clock=clock, config=config, create=create),
            limit_s=config.store_deadline_s + MARGIN_S,
            in_memory=url == IN_MEMORY,
        )

    def __enter__(self) -> Self:
        """Opens the store, so that one that cannot be opened is known at once."""
        self._store.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the calls of other threads that are under way, then close the store. Closing twice is harmless."""
        self._store.close()

    def __repr__(self) -> str:
        return f"SyncQueue({masked(self._url)!r})"

    def enqueue(self, request: EnqueueRequest) -> EnqueueOutcome:
        """Add one job. Durable when it returns.

        Raises:
            InvalidInput: the request breaks a rule; nothing was written.
            DedupeConflict, IdReused, QueueFull: see there; nothing was written.
            OutcomeUnknown: the answer was lost; a repeat with the id it carries is safe.
        """
        [filled] = self._filled([request])
        return self._store.call(lambda storage: storage.jobs.enqueue(filled), ids=_ids([filled]))

    def enqueue_bulk(self, requests: Sequence[EnqueueRequest]) -> list[EnqueueOutcome]:
        """Add up to 10 000 jobs in one transaction, all or nothing; outcomes in request order."""
        filled = self._filled(requests)
        return self._store.call(lambda storage: storage.jobs.enqueue_bulk(filled), ids=_ids(filled))

    def wake(self, queues: Sequence[str] | None = None) -> None:
        """Tell workers that jobs of these queues, or of any, may be ready: after a commit of your own that added some.
        Without it they are found by polling."""

        async def work(storage: Storage) -> None:
            storage.wake(queues)

        self._store.call(work)

    def retry(self, job_id: str, *, actor: Actor = PYTHON) -> RetryOutcome:
        """Make a failed or dead job pending, due now, with a fresh budget."""
        return self._store.call(lambda storage: storage.jobs.retry(JobId(job_id), actor=actor), ids=())

    def cancel(self, job_id: str, *, actor: Actor = PYTHON) -> CancelOutcome:
        """A waiting job ends `dead`/`cancelled`; a running one is asked to stop."""
        return self._store.call(lambda storage: storage.jobs.cancel(JobId(job_id), actor=actor), ids=())

    def get(self, job_id: str) -> JobDetail | None:
        """Everything about one job; None if there is none."""
        return self._store.call(lambda storage: storage.jobs.get(JobId(job_id)))

    def explain(self, job_id: str, *, stale_after: timedelta = STALE_AFTER) -> Sequence[Blocker]:
        """Why the job does not run at the moment, most final first; see `JobStore.explain`."""
        return self._store.call(lambda storage: storage.jobs.explain(JobId(job_id), stale_after=stale_after))

    def list_jobs(
        self, chosen: JobFilter, *, limit: int = 50, cursor: str | None = None, with_total: bool = True
    ) -> Page:
        """One page of the jobs that `chosen` names, newest id first, with their true total unless told otherwise."""
        return self._store.call(
            lambda storage: storage.jobs.list_jobs(chosen, limit=limit, cursor=cursor, with_total=with_total)
        )

    def count(self, chosen: JobFilter) -> dict[str, int]:
        """How many jobs `chosen` names, by status."""
        return self._store.call(lambda storage: storage.jobs.count(chosen))

    def wait(self, job_id: str, timeout: timedelta | float = WAIT_S) -> JobDetail:
        """The job once it has ended, `done` or `dead`; seen at most a quarter of a second late. One that failed and
        waits for its retry has not ended.

        Looks after 10 ms, then after a tenth of the time waited so far, at most every 250 ms: no wake-up of the store
        tells of ends. The thread sleeps in between, and a store that fails meanwhile ends the wait with its error.

        Raises:
            WaitTimeout: a TimeoutError with the job's `status`; it had not ended within `timeout`.
            NotFound: there is no such job, or no longer.
        """
        limit_s = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        check_number("timeout", limit_s, 0, WAIT_MAX_S)
        began = time.monotonic()
        while True:
            detail = self.get(job_id)
            if detail is None:
                raise NotFound(f"there is no job {job_id!r}")
            if detail.row.status in FINISHED:
                return detail
            waited = time.monotonic() - began
            if waited >= limit_s:
                raise WaitTimeout(detail.row.id, detail.row.status, limit_s)
            time.sleep(min(max(LOOK_S, waited * LOOK_SHARE), LOOK_MAX_S, limit_s - waited))

    def _filled(self, requests: Sequence[EnqueueRequest]) -> list[EnqueueRequest]:
        """The requests with what they left out, and with ids, so that one whose answer is lost can be repeated."""
        fresh = [new_id()] if len(requests) == 1 else new_ids(len(requests))
        return [
            fill(request if request.id is not None else replace(request, id=job_id), self._router, self._handlers)
            for request, job_id in zip(requests, fresh, strict=True)
        ]


def _ids(requests: Sequence[EnqueueRequest]) -> tuple[str, ...]:
    return tuple(request.id for request in requests if request.id is not None)
