"""forge-jobs: a durable background job queue. One SQLite file to begin with, no server.

The public names of the package are those of this module. They are imported when they are first used, so that a
program that only enqueues does not pay for the worker, and `import forge_jobs` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forge_jobs.config import RuntimeConfig, StoreConfig
    from forge_jobs.ids import JobId
    from forge_jobs.runtime.backoff import Exponential
    from forge_jobs.runtime.context import JobCtx
    from forge_jobs.runtime.handler import HandlerRegistry, JobHandler
    from forge_jobs.runtime.loops.cron import cron_tick_once
    from forge_jobs.runtime.outcome import (
        Dead,
        DeadError,
        Done,
        DoneError,
        Failed,
        FailedError,
        JobOutcome,
        Throttled,
        ThrottledError,
    )
    from forge_jobs.runtime.queue_runtime import QueueRuntime
    from forge_jobs.runtime.rate_limit import RateLimiter
    from forge_jobs.runtime.routing import DefaultRouter, KindPrefixRouter, Router
    from forge_jobs.storage.error import (
        Busy,
        ConfigError,
        DedupeConflict,
        ForgeError,
        ForkedConnection,
        IdReused,
        InvalidInput,
        InvalidKey,
        InvalidName,
        InvalidPayload,
        LostOwnership,
        NotFound,
        NoTransaction,
        OutcomeUnknown,
        QueueFull,
        QueueInUse,
        ReadOnly,
        ScheduleExists,
        SchemaMismatch,
        StorageError,
        StoreFull,
        StoreUnavailable,
        WaitTimeout,
        is_transient_conflict,
    )
    from forge_jobs.storage.open import open_storage
    from forge_jobs.storage.protocol import JobStore as JobQueue
    from forge_jobs.storage.protocol import Storage
    from forge_jobs.storage.types.blocker import Blocker, BlockerCode
    from forge_jobs.storage.types.finalize import FinalizeOutcome
    from forge_jobs.storage.types.job import Deduped, Enqueued, EnqueueOutcome, EnqueueRequest
    from forge_jobs.storage.types.rate_limit import Granted, Refused
    from forge_jobs.storage.types.schedule import Schedule, ScheduleChange, ScheduleDeclaration
    from forge_jobs.sync.sync_queue import SyncQueue
    from forge_jobs.version import __version__

__all__ = [
    "Blocker",
    "BlockerCode",
    "Busy",
    "ConfigError",
    "Dead",
    "DeadError",
    "DedupeConflict",
    "Deduped",
    "DefaultRouter",
    "Done",
    "DoneError",
    "EnqueueOutcome",
    "EnqueueRequest",
    "Enqueued",
    "Exponential",
    "Failed",
    "FailedError",
    "FinalizeOutcome",
    "ForgeError",
    "ForkedConnection",
    "Granted",
    "HandlerRegistry",
    "IdReused",
    "InvalidInput",
    "InvalidKey",
    "InvalidName",
    "InvalidPayload",
    "JobCtx",
    "JobHandler",
    "JobId",
    "JobOutcome",
    "JobQueue",
    "KindPrefixRouter",
    "LostOwnership",
    "NoTransaction",
    "NotFound",
    "OutcomeUnknown",
    "QueueFull",
    "QueueInUse",
    "QueueRuntime",
    "RateLimiter",
    "ReadOnly",
    "Refused",
    "Router",
    "RuntimeConfig",
    "Schedule",
    "ScheduleChange",
    "ScheduleDeclaration",
    "ScheduleExists",
    "SchemaMismatch",
    "Storage",
    "StorageError",
    "StoreConfig",
    "StoreFull",
    "StoreUnavailable",
    "SyncQueue",
    "Throttled",
    "ThrottledError",
    "WaitTimeout",
    "__version__",
    "cron_tick_once",
    "is_transient_conflict",
    "open_storage",
]

_HOMES = {
    "forge_jobs.config": "RuntimeConfig StoreConfig",
    "forge_jobs.ids": "JobId",
    "forge_jobs.runtime.backoff": "Exponential",
    "forge_jobs.runtime.context": "JobCtx",
    "forge_jobs.runtime.handler": "HandlerRegistry JobHandler",
    "forge_jobs.runtime.loops.cron": "cron_tick_once",
    "forge_jobs.runtime.outcome": (
        "Dead DeadError Done DoneError Failed FailedError JobOutcome Throttled ThrottledError"
    ),
    "forge_jobs.runtime.queue_runtime": "QueueRuntime",
    "forge_jobs.runtime.rate_limit": "RateLimiter",
    "forge_jobs.runtime.routing": "DefaultRouter KindPrefixRouter Router",
    "forge_jobs.storage.error": (
        "Busy ConfigError DedupeConflict ForgeError ForkedConnection IdReused InvalidInput InvalidKey "
        "InvalidName InvalidPayload LostOwnership NotFound NoTransaction OutcomeUnknown QueueFull QueueInUse "
        "ReadOnly ScheduleExists SchemaMismatch StorageError StoreFull StoreUnavailable WaitTimeout "
        "is_transient_conflict"
    ),
    "forge_jobs.storage.open": "open_storage",
    "forge_jobs.storage.protocol": "JobQueue=JobStore Storage",
    "forge_jobs.storage.types.blocker": "Blocker BlockerCode",
    "forge_jobs.storage.types.finalize": "FinalizeOutcome",
    "forge_jobs.storage.types.job": "Deduped Enqueued EnqueueOutcome EnqueueRequest",
    "forge_jobs.storage.types.rate_limit": "Granted Refused",
    "forge_jobs.storage.types.schedule": "Schedule ScheduleChange ScheduleDeclaration",
    "forge_jobs.sync.sync_queue": "SyncQueue",
    "forge_jobs.version": "__version__",
}
_HOME_OF = {
    name.partition("=")[0]: (home, name.rpartition("=")[2]) for home, names in _HOMES.items() for name in names.split()
}


def __getattr__(name: str) -> Any:
    """Import a public name from the module it lives in."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'forge_jobs' has no attribute {name!r}")
    home, original = _HOME_OF[name]
    value = globals()[name] = getattr(import_module(home), original)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
