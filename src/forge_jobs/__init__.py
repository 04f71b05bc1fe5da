"""forge-jobs: a durable background job queue. One SQLite file to begin with, no server.

The public names of the package are those of this module; importing it starts nothing.
"""

from forge_jobs.config import RuntimeConfig, StoreConfig
from forge_jobs.ids import JobId
from forge_jobs.runtime.context import JobCtx
from forge_jobs.runtime.handler import HandlerRegistry, JobHandler
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
    SchemaMismatch,
    StorageError,
    StoreFull,
    StoreUnavailable,
    is_transient_conflict,
)
from forge_jobs.storage.open import open_storage
from forge_jobs.storage.protocol import JobStore as JobQueue
from forge_jobs.storage.protocol import Storage
from forge_jobs.storage.types.finalize import FinalizeOutcome
from forge_jobs.storage.types.job import Deduped, Enqueued, EnqueueOutcome, EnqueueRequest
from forge_jobs.version import __version__

__all__ = [
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
    "Failed",
    "FailedError",
    "FinalizeOutcome",
    "ForgeError",
    "ForkedConnection",
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
    "Router",
    "RuntimeConfig",
    "SchemaMismatch",
    "Storage",
    "StorageError",
    "StoreConfig",
    "StoreFull",
    "StoreUnavailable",
    "Throttled",
    "ThrottledError",
    "__version__",
    "is_transient_conflict",
    "open_storage",
]
