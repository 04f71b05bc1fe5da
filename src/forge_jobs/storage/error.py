"""The errors of forge-jobs, by class. Callers branch on class, never on text.

ForgeError
├── ConfigError
├── LifespanError               a resource of the handlers could not be made or closed
├── WaitTimeout                 a job had not ended in time; also a TimeoutError
└── StorageError
    ├── InvalidInput            refused before the store was touched
    │   ├── InvalidPayload
    │   ├── InvalidName
    │   └── InvalidKey
    ├── IdReused                same id, other content
    ├── DedupeConflict          the key is held and the caller asked for an error
    ├── QueueFull               the queue's `max_pending` is reached
    ├── QueueInUse              a queue with jobs or live workers cannot be deleted
    ├── ScheduleExists          a schedule of this name is there already
    ├── NotFound
    ├── ReadOnly                the store was opened to be looked at only
    ├── NoTransaction
    ├── LostOwnership           the fence is no longer current
    ├── Busy                    locked past the deadline; nothing was written
    ├── StoreFull               no space left; nothing was written
    ├── StoreUnavailable        the store does not answer
    ├── OutcomeUnknown          the answer was lost; repeating with the same id is safe
    ├── SchemaMismatch          this program and the schema do not fit each other
    └── ForkedConnection        a store opened before fork() was used after it
"""

from __future__ import annotations

from typing import Any


class ForgeError(Exception):
    """Base of every error that forge-jobs raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by what it holds, not by its constructor, whose arguments are others: a pool of processes
        that cannot unpickle an error hangs."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ForgeError], args: tuple[Any, ...], state: dict[str, Any]) -> ForgeError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(ForgeError):
    """A setting is unknown, of the wrong type or out of range; the message names key and value."""


class LifespanError(ForgeError):
    """A resource that handlers share could not be made, or failed as it was closed; the message names it."""


class WaitTimeout(ForgeError, TimeoutError):
    """The job had not ended when the time to wait for it was over. It goes on; `status` is where it stood."""

    def __init__(self, job_id: str, status: str, timeout_s: float) -> None:
        super().__init__(f"job {job_id} is {status} after {timeout_s:g} s; it goes on, wait again or look later")
        self.job_id = job_id
        self.status = status


class StorageError(ForgeError):
    """Base of everything a store can answer with."""


class InvalidInput(StorageError):
    """A request was refused before the store was touched.

    `field` names what was wrong (for payloads the path inside it), `reason` is a stable word for
    programs, e.g. `out_of_range`, `invalid_type`, `naive_time`.
    """

    def __init__(self, message: str, *, field: str = "", reason: str = "invalid") -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason


class InvalidPayload(InvalidInput):
    """The payload is not strict JSON, or is too large."""


class InvalidName(InvalidInput):
    """A queue, kind, schedule or scope name breaks the naming rule."""


class InvalidKey(InvalidInput):
    """A dedupe key is empty, too long or not printable."""


class IdReused(StorageError):
    """A job with this id exists and its kind, queue, payload or key differ from the request's."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job id {job_id} is taken by a job with other content; use a new id")
        self.job_id = job_id


class DedupeConflict(StorageError):
    """The dedupe key is held and the request said `on_conflict="error"`."""

    def __init__(self, key: str, existing_id: str) -> None:
        super().__init__(f"dedupe key {key!r} is held by job {existing_id}")
        self.key = key
        self.existing_id = existing_id


class QueueFull(StorageError):
    """The queue holds `max_pending` waiting jobs; nothing was added."""

    def __init__(self, queue: str, max_pending: int) -> None:
        super().__init__(f"queue {queue!r} is full: max_pending is {max_pending}; try again later")
        self.queue = queue
        self.max_pending = max_pending


class QueueInUse(StorageError):
    """The queue still has jobs, or a live process declares it."""


class ScheduleExists(StorageError):
    """A schedule of this name is there already; nothing was changed."""


class NotFound(StorageError):
    """There is no such job, queue, schedule or process."""


class ReadOnly(StorageError):
    """The store was opened with `read_only`; nothing was changed."""

    def __init__(
        self, message: str = "this store was opened to be looked at only (read_only); nothing was changed"
    ) -> None:
        super().__init__(message)


class NoTransaction(StorageError):
    """A transactional enqueue was asked for and no transaction is open."""


class LostOwnership(StorageError):
    """The caller's fence is no longer current: another owner has, or had, the job."""


class Busy(StorageError):
    """The store stayed locked past the deadline. Nothing was written; trying again is safe."""


class StoreFull(StorageError):
    """The disk has no space left. Nothing was acknowledged or written."""


class StoreUnavailable(StorageError):
    """The store does not answer. `fatal` means that this process must not go on using it."""

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


class OutcomeUnknown(StorageError):
    """The answer of the store was lost. The write may or may not have happened.

    For an enqueue, `ids` are the ids of the requests: repeating them with these ids is safe.
    """

    def __init__(self, message: str, ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class SchemaMismatch(StorageError):
    """The schema is newer than this program serves, older than it needs, or was tampered with."""


class ForkedConnection(StorageError):
    """The store was opened before `fork()` and used, or opened again, after it in the child."""

    def __init__(self) -> None:
        super().__init__(
            "this storage was open at a fork(), which an open store does not survive in the child; "
            "close it before the fork and open it on both sides, start a new process instead, or use SyncQueue"
        )


_TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})


def is_transient_conflict(error: BaseException) -> bool:
    """True when the same write may well succeed a moment later: `Busy` and lock or serialization conflicts."""
    if isinstance(error, Busy):
        return True
    cause: Any = error.__cause__
    return getattr(cause, "sqlstate", None) in _TRANSIENT_SQLSTATES
